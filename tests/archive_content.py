"""What an archive holds after a crash, read beside it: its index, and its files."""

import hashlib
import sqlite3
from pathlib import Path
from typing import NamedTuple

from service.archive import Archive

Uids = tuple[str, str, str]


class Row(NamedTuple):
    """What is known of an instance."""

    sha256: str
    storage_class: str


def indexed(folder: Path) -> dict[Uids, Row]:
    """Return what the index says, read without the archive."""
    index = sqlite3.connect(folder / "index.sqlite")
    try:
        found = index.execute(
            "SELECT study_instance_uid, series_instance_uid, sop_instance_uid, sha256,"
            " storage_class FROM study JOIN series ON series.study = study.id"
            " JOIN instance ON instance.series = series.id"
        ).fetchall()
        assert index.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert index.execute("PRAGMA foreign_key_check").fetchall() == []
    finally:
        index.close()
    return {row[:3]: Row(*row[3:]) for row in found}


def on_disk(folder: Path) -> dict[Uids, Row]:
    """Return what the files say."""
    found = {}
    for path in (folder / "instances").rglob("*.dcm"):
        uids = (path.parent.parent.name, path.parent.name, path.stem)
        sidecar = path.with_suffix(".class")
        storage_class = sidecar.read_text() if sidecar.exists() else "STANDARD"
        found[uids] = Row(hashlib.sha256(path.read_bytes()).hexdigest(), storage_class)
    return found


def content(folder: Path) -> dict[Uids, Row]:
    """Open what a kill has left, check that all agrees, and return what is in it."""
    archive = Archive(folder)
    try:
        rows = indexed(folder)
        assert rows == on_disk(folder)
        for name in ("incoming", "outgoing", "deleting"):
            assert list((folder / name).iterdir()) == []
        for path in (folder / "operations").iterdir():
            operation = archive.operation(path.stem)
            assert operation
            assert operation.finished
            assert not operation.error
        assert not archive.rebuild().skipped
        assert indexed(folder) == rows
    finally:
        archive.close()
    return rows
