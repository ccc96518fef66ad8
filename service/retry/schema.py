"""The queue's SQLite file, and the statements that read it."""

import json
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, Final

from service.retry.entry import STATES, Entry, Past
from service.retry.protocol import HELD, LEASE, Filter, Lease, Totals
from service.retry.timing import LONGEST_WAIT

VERSION: Final = 1

# `number` is the order of arrival, which no clock can change. `due` is when a pending entry may be
# tried, when a lease runs out, and NULL of the dead. `dropped` rows are gone for every reader.
SCHEMA: Final = """
CREATE TABLE entry (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_instance_uid TEXT NOT NULL UNIQUE,
    series_instance_uid TEXT NOT NULL,
    study_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    template TEXT NOT NULL,
    source TEXT NOT NULL,
    wire TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('pending', 'leased', 'dead', 'dropped')),
    first_seen REAL NOT NULL,
    since REAL NOT NULL,
    due REAL CHECK ((due IS NULL) = (state IN ('dead', 'dropped'))),
    attempts INTEGER NOT NULL,
    reason TEXT NOT NULL,
    history TEXT NOT NULL,
    token TEXT
) STRICT;
CREATE INDEX entry_due ON entry (due) WHERE due IS NOT NULL;
CREATE INDEX entry_waiting ON entry (number, due, attempts) WHERE due IS NOT NULL;
CREATE INDEX entry_state ON entry (state, number);
CREATE INDEX entry_token ON entry (token) WHERE token IS NOT NULL;
CREATE INDEX entry_reason ON entry (number, state, study_instance_uid, reason);
CREATE INDEX entry_study ON entry (study_instance_uid, number);

CREATE TABLE total (entries INTEGER NOT NULL, size INTEGER NOT NULL) STRICT;
INSERT INTO total VALUES (0, 0);
CREATE TRIGGER entry_added AFTER INSERT ON entry BEGIN
    UPDATE total SET entries = entries + 1, size = size + NEW.size;
END;
CREATE TRIGGER entry_resized AFTER UPDATE OF size ON entry BEGIN
    UPDATE total SET size = size + NEW.size - OLD.size;
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entry BEGIN
    UPDATE total SET entries = entries - 1, size = size - OLD.size;
END;

CREATE TABLE outcome (name TEXT PRIMARY KEY, attempts INTEGER NOT NULL) STRICT, WITHOUT ROWID;
"""

_COLUMNS: Final = (
    "sop_instance_uid, series_instance_uid, study_instance_uid, sop_class_uid, transfer_syntax,"
    " template, source, wire, size, state, first_seen, since, due, attempts, reason, history"
)

_STAYING: Final = ("sop_instance_uid", "first_seen")

# A moment further ahead than any wait could be was set by a clock that has since been put back.
_IS_DUE: Final = f"(due <= :now OR due > :now + {2 * LONGEST_WAIT})"

# Oldest first; a probe takes what was tried least, since some may fail for no fault of the store's.
# Where the oldest two thousand all wait for their time, whichever waits longest.
_LEASE: Final = f"""
UPDATE entry SET state = 'leased', due = :until, token = :token WHERE number = COALESCE(
    (SELECT number FROM (
        SELECT number, due, attempts FROM entry INDEXED BY entry_waiting WHERE due IS NOT NULL
        ORDER BY number LIMIT 2000
    ) WHERE {_IS_DUE} ORDER BY CASE WHEN :probe THEN attempts ELSE 0 END, number LIMIT 1),
    (SELECT number FROM entry WHERE due <= :now ORDER BY due LIMIT 1),
    (SELECT number FROM entry WHERE due > :now + {2 * LONGEST_WAIT} ORDER BY due LIMIT 1)
) RETURNING {_COLUMNS}
"""  # noqa: S608 - constants


def save(connection: sqlite3.Connection, entry: Entry) -> None:
    """Add an entry, or write what has changed of it; no lease on it is left."""
    row = asdict(entry)
    row["due"] = row.pop("next_attempt")
    row["history"] = history_text(entry.history)
    names = ", ".join(row)
    places = ", ".join(f":{name}" for name in row)
    changed = ", ".join(f"{name} = excluded.{name}" for name in row if name not in _STAYING)
    connection.execute(
        f"INSERT INTO entry ({names}) VALUES ({places})"  # noqa: S608
        f" ON CONFLICT (sop_instance_uid) DO UPDATE SET {changed}, token = NULL",
        row,
    )


def resize(connection: sqlite3.Connection, sop_instance_uid: str, size: int) -> None:
    """Write the bytes that an entry has now, and nothing else of it."""
    connection.execute(
        "UPDATE entry SET size = ? WHERE sop_instance_uid = ?", (size, sop_instance_uid)
    )


def delete(connection: sqlite3.Connection, sop_instance_uid: str) -> None:
    """Remove a row, whatever its state."""
    connection.execute("DELETE FROM entry WHERE sop_instance_uid = ?", (sop_instance_uid,))


def mark_dropped(connection: sqlite3.Connection, sop_instance_uid: str) -> None:
    """Hide an entry from every reader, for good."""
    connection.execute(
        "UPDATE entry SET state = 'dropped', due = NULL, token = NULL WHERE sop_instance_uid = ?",
        (sop_instance_uid,),
    )


def is_any_due(connection: sqlite3.Connection, now: float) -> bool:
    """Tell whether there is an entry to lease."""
    statement = f"SELECT 1 FROM entry WHERE {_IS_DUE} LIMIT 1"  # noqa: S608
    return connection.execute(statement, {"now": now}).fetchone() is not None


def lease(connection: sqlite3.Connection, token: str, now: float, *, probe: bool) -> Entry | None:
    """Give the oldest entry that is due, or to a probe the least tried, to a token's holder."""
    values = {"now": now, "until": now + LEASE, "token": token, "probe": probe}
    rows = connection.execute(_LEASE, values).fetchall()
    return entry_of(rows[0]) if rows else None


def is_current(connection: sqlite3.Connection, lease: Lease) -> bool:
    """Tell whether a lease is still its holder's."""
    return (
        connection.execute("SELECT 1 FROM entry WHERE token = ?", (lease.token,)).fetchone()
        is not None
    )


def filled(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return how many entries the queue holds, and their bytes."""
    entries, size = connection.execute("SELECT entries, size FROM total").fetchone()
    return entries, size


def written(connection: sqlite3.Connection) -> tuple[int, int]:
    """Return what `filled` does, once something could be written."""
    connection.execute("UPDATE total SET entries = entries + 1")
    connection.execute("UPDATE total SET entries = entries - 1")
    return filled(connection)


def totals(connection: sqlite3.Connection) -> Totals:
    """Count the entries by state, and the attempts by outcome."""
    by_state = dict(
        connection.execute(
            "SELECT state, count(*) FROM entry WHERE state <> 'dropped' GROUP BY state"
        )
    )
    oldest = connection.execute(
        "SELECT first_seen FROM entry WHERE due IS NOT NULL ORDER BY number LIMIT 1"
    ).fetchone()
    return Totals(
        entries={state: by_state.get(state, 0) for state in STATES},
        size=filled(connection)[1],
        oldest=oldest and oldest[0],
        outcomes=dict(connection.execute("SELECT name, attempts FROM outcome")),
    )


def find(connection: sqlite3.Connection, sop_instance_uid: str) -> Entry | None:
    """Return the entry of an instance, unless it is dropped."""
    row = connection.execute(
        f"SELECT {_COLUMNS} FROM entry WHERE sop_instance_uid = ? AND state <> 'dropped'",  # noqa: S608
        (sop_instance_uid,),
    ).fetchone()
    return row and entry_of(row)


def select(
    connection: sqlite3.Connection, chosen: Filter, limit: int, after: int
) -> list[tuple[int, Entry]]:
    """Return entries with their numbers, in the order of arrival."""
    condition, parameters = where(chosen)
    # Rows are wide: a search through all reasons reads an index that has no more than it needs.
    index = "INDEXED BY entry_reason" if chosen.reason and not chosen.instance else ""
    rows = connection.execute(
        f"SELECT number, {_COLUMNS} FROM entry WHERE number IN (SELECT number FROM entry {index}"  # noqa: S608
        f" WHERE {condition} AND number > :after ORDER BY number LIMIT :limit) ORDER BY number",
        parameters | {"after": after, "limit": limit},
    )
    return [(row[0], entry_of(row[1:])) for row in rows]


def revive(connection: sqlite3.Connection, chosen: Filter, now: float) -> int:
    """Make instances due that nobody is sending; return how many."""
    condition, parameters = where(chosen)
    return connection.execute(
        "UPDATE entry SET state = 'pending', due = :now, since = :now, token = NULL"  # noqa: S608
        f" WHERE {condition} AND transfer_syntax <> ''"
        " AND NOT (state = 'leased' AND due > :now AND due <= :until)",
        parameters | {"now": now, "until": now + HELD},
    ).rowcount


def where(chosen: Filter) -> tuple[str, dict[str, Any]]:
    """Return a condition in SQL, and its parameters."""
    conditions = {
        "state": "state = :state",
        "reason": r"reason LIKE '%' || :reason || '%' ESCAPE '\'",
        "study": "study_instance_uid = :study",
        "instance": "sop_instance_uid = :instance",
    }
    parameters = {name: value for name, value in asdict(chosen).items() if value}
    if chosen.reason:
        parameters["reason"] = re.sub(r"([\\%_])", r"\\\1", chosen.reason)
    used = [conditions[name] for name in parameters]
    return " AND ".join([*used, "state <> 'dropped'"]), parameters


def entry_of(row: Sequence[Any]) -> Entry:
    """Return a row of the columns, which have the order of the fields, as an entry."""
    values = dict(zip((field.name for field in fields(Entry)), row, strict=True))
    values["history"] = tuple(Past(**one) for one in json.loads(values["history"]))
    return Entry(**values)


def history_text(history: Sequence[Past]) -> str:
    """Return the last attempts as JSON."""
    return json.dumps([asdict(one) for one in history])


def count_outcome(connection: sqlite3.Connection, name: str) -> None:
    """Count an attempt."""
    connection.execute(
        "INSERT INTO outcome VALUES (?, 1) ON CONFLICT DO UPDATE SET attempts = attempts + 1",
        (name,),
    )
