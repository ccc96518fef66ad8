"""The SQLite side of the archive: the statements that change rows."""

import sqlite3
from typing import NamedTuple

from service.archive.attributes import Description


class Kept(NamedTuple):
    """What the index keeps of a file; `size` is in bytes."""

    size: int
    sha256: str
    storage_class: str


def add(connection: sqlite3.Connection, description: Description, kept: Kept) -> None:
    """Insert an instance, and its series and study where they are new."""
    study, series, instance = description.uids
    new_study = connection.execute(
        "INSERT INTO study (study_instance_uid, attributes) VALUES (?, ?)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (study, description.study),
    ).fetchone()
    if new_study:
        connection.executemany(
            "INSERT INTO patient_name_token (token, study) VALUES (?, ?)",
            [(token, *new_study) for token in description.name_tokens],
        )
    connection.execute(
        "INSERT INTO series (study, series_instance_uid, attributes)"
        " SELECT id, ?, ? FROM study WHERE study_instance_uid = ? ON CONFLICT DO NOTHING",
        (series, description.series, study),
    )
    (row,) = connection.execute(
        "INSERT INTO instance (series, sop_instance_uid, sop_class_uid, transfer_syntax_uid,"
        " size, sha256, storage_class)"
        " SELECT series.id, ?, ?, ?, ?, ?, ? FROM series JOIN study ON study.id = series.study"
        " WHERE study_instance_uid = ? AND series_instance_uid = ? RETURNING id",
        (instance, description.sop_class, description.transfer_syntax, *kept, study, series),
    ).fetchone()
    connection.execute(
        "INSERT INTO instance_attributes VALUES (?, ?, ?)",
        (row, description.fields, description.instance),
    )


_UNDER = (
    "FROM study JOIN series ON series.study = study.id JOIN instance ON instance.series = series.id"
    " WHERE study_instance_uid = ?1 AND (?2 IS NULL OR series_instance_uid = ?2)"
    " AND (?3 IS NULL OR sop_instance_uid = ?3)"
)


def count(
    connection: sqlite3.Connection, study: str, series: str | None, instance: str | None
) -> int:
    """Count the instances of a study or a series; 1 or 0 for an instance."""
    statement = f"SELECT count(*) {_UNDER}"
    (number,) = connection.execute(statement, (study, series, instance)).fetchone()
    return int(number)


def remove(
    connection: sqlite3.Connection, study: str, series: str | None, instance: str | None
) -> int:
    """Delete the rows of a study, a series or an instance; return how many instances it were."""
    return connection.execute(
        f"DELETE FROM instance WHERE id IN (SELECT instance.id {_UNDER})",  # noqa: S608
        (study, series, instance),
    ).rowcount


def clear(connection: sqlite3.Connection) -> None:
    """Delete all rows that can be rebuilt from the files."""
    for table in ("instance_attributes", "instance", "series", "patient_name_token", "study"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a constant
