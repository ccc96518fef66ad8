"""Files to a store, many at once: JPEGs through the line, ready DICOM files as they are."""

import csv
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any, Final

from pydicom import Dataset

from service.dicom import attributes, part10
from service.dicom.outcome import Conflict, Rejected, Stored, Unavailable, Verdict
from service.errors import BadAttribute, BadRequest, JpegstowError
from service.ingest import Rules, Upload, digest_of, ingest, request_name
from service.parallel import at_once
from service.patience import Pause, patiently
from service.store import DicomwebStore

JPEG_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".jpe", ".jfif"})
DICOM_SUFFIXES: Final = frozenset({".dcm", ".dicom"})

GOOD: Final = frozenset({"stored", "already stored"})
"""The outcomes of what a store has."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file to send, and what is said of it."""

    path: Path
    said: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of one file; `reason` is empty for a stored one, unless the store warns."""

    path: Path
    outcome: str
    reason: str = ""
    sop_instance_uid: str = ""


def is_sendable(path: Path) -> bool:
    """Tell whether a file in a folder is a JPEG or a DICOM file, by its name."""
    return path.suffix.lower() in JPEG_SUFFIXES | DICOM_SUFFIXES


def is_ready(path: Path) -> bool:
    """Tell whether a file in a folder is a DICOM file, by its name or by its content."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def find(
    patterns: Iterable[str], in_folders: Callable[[Path], bool] = is_sendable
) -> Iterator[Path]:
    """Yield the files of paths, folders and globs; `**` reaches into folders, as in ``./**.dcm``.

    Links are followed. One that leads nowhere is yielded, too, so that its file is missed.

    Raises
    ------
    BadRequest
        For a pattern that matches nothing, and a folder that can't be looked into.
    """
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(p for p in _below(path) if _is_chosen(p, in_folders))
        elif has_magic(pattern) and not path.exists():
            deep = re.sub(r"\*\*(?![/\\]|$)", "**/*", pattern)  # Python's ** is a whole step
            found = [Path(name) for name in sorted(glob(deep, recursive=True))]  # noqa: PTH207 - absolute too
        else:
            found = [path] if path.is_file() else []
        if not found:
            raise BadRequest(f"no JPEG or DICOM file is at {pattern}", reason="no-file")
        yield from (file for file in found if file.is_file() or _leads_nowhere(file))


def _below(folder: Path) -> Iterator[Path]:
    """Yield what is in a folder and in those below it, but for the folders themselves."""
    seen: set[tuple[int, int]] = set()
    for place, folders, files in os.walk(folder, onerror=_unseen, followlinks=True):
        known = Path(place).stat()
        if (known.st_dev, known.st_ino) in seen:
            folders.clear()  # a link has led here again
            continue
        seen.add((known.st_dev, known.st_ino))
        folders.sort()
        yield from (Path(place, name) for name in files)


def _unseen(error: OSError) -> None:
    """Refuse to leave out in silence what can't be looked into."""
    raise BadRequest(
        f"the folder can't be read ({type(error).__name__})",
        reason="no-folder",
        where=str(error.filename),
        mend="make it readable, or name the others only",
    ) from error


def _is_chosen(path: Path, in_folders: Callable[[Path], bool]) -> bool:
    """Tell whether something in a folder is to be sent, be it only to be told of as unreadable."""
    try:
        return (path.is_file() or _leads_nowhere(path)) and in_folders(path)
    except OSError:
        return True


def _leads_nowhere(path: Path) -> bool:
    return path.is_symlink() and not path.exists()


def items_of(
    patterns: Iterable[str], manifest: Path | None, pairs: Sequence[str], metadata: Path | None
) -> list[Item]:
    """Return the files that patterns and a manifest name, with what is said of each.

    Raises
    ------
    BadRequest
        If they name none, or one that isn't there.
    """
    said = parse_settings(pairs, metadata)
    found = [Item(path, {}) for path in find(patterns)]
    listed = read_manifest(manifest) if manifest else []
    if not found and not listed:
        raise BadRequest("no file is named: give a PATH, or --manifest", reason="no-file")
    return [with_shared(item, said) for item in (*found, *listed)]


def read_manifest(path: Path) -> list[Item]:
    """Read a CSV file: a column `path`, relative to the file, and columns named by keyword.

    An empty cell says nothing.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file, strict=True)
        try:
            if "path" not in (rows.fieldnames or ()):
                raise BadRequest("the manifest has no column named path", where=str(path))
            return [_manifest_item(path, rows.line_num, row) for row in rows]
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{path}:{rows.line_num}"
            raise BadRequest("the manifest isn't CSV in UTF-8", where=where) from error


def _manifest_item(manifest: Path, line: int, row: dict[str, Any]) -> Item:
    if None in row or None in row.values() or not row["path"]:
        raise BadRequest("the row doesn't fit the heading", where=f"{manifest}:{line}")
    said = {name: value for name, value in row.items() if name != "path" and value != ""}
    return Item(manifest.parent / row["path"], said)


def with_shared(item: Item, said: Mapping[str, Any]) -> Item:
    """Add what is said of all files; an item's own wins, and a ready DICOM file takes none."""
    ready = item.path.suffix.lower() in DICOM_SUFFIXES
    return item if ready else Item(item.path, {**said, **item.said})


def parse_settings(pairs: Sequence[str], metadata: Path | None) -> dict[str, Any]:
    """Join a metadata file's object and ``Keyword=Value`` pairs; a pair wins.

    A value that begins like JSON's lists and objects is read as JSON.
    """
    said: dict[str, Any] = {}
    if metadata:
        try:
            said = json.loads(metadata.read_text("utf-8"))
        except ValueError as error:
            raise BadRequest("the file isn't JSON in UTF-8", where=str(metadata)) from error
        if not isinstance(said, dict):
            raise BadRequest("the file isn't a JSON object", where=str(metadata))
    for pair in pairs:
        keyword, equals, value = pair.partition("=")
        if not equals:
            raise BadRequest("--set takes Keyword=Value", where="--set")
        said[keyword] = _value(keyword, value)
    return said


def _value(keyword: str, value: str) -> Any:
    if not value.startswith(("[", "{")):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        raise BadAttribute("the value begins like JSON but isn't", where=keyword) from error


def upload_of(image: bytes, said: Mapping[str, Any], template: str) -> Upload:
    """Return a file as an upload that is a request of its own.

    Files share a study when what is said of them names one: a study's UID, its ID, or an
    accession number. Then sending them again, or one by one, makes the same instances.
    """
    dataset = attributes.parse(said)
    digest = digest_of(image)
    name = request_name([digest], [dataset], template, "")
    return Upload(image, digest, dataset, template, "file", name)


def send_all(
    items: Sequence[Item],
    send: Callable[[Item], Sent],
    jobs: int,
) -> Iterator[Sent]:
    """Send files, `jobs` at a time; yield what became of each as it ends, in their order."""
    return at_once(send, items, jobs)


def sender(rules: Rules, store: DicomwebStore, template: str) -> Callable[[Item], Sent]:
    """Return the function that sends one file and never raises for what the file holds."""

    def send(item: Item) -> Sent:
        try:
            data = item.path.read_bytes()
            if is_dicom(item.path, data):
                return _send_file(item, data, store)
            return _send_jpeg(item, data, rules, store, template)
        except OSError as error:
            return Sent(item.path, "unreadable", type(error).__name__)
        except JpegstowError as error:
            return Sent(item.path, "refused", str(error))

    return send


def storer(store: DicomwebStore, pause: Pause) -> Callable[[Item], Sent]:
    """Return the function that stores one ready DICOM file, patiently; it takes nothing else."""

    def send(item: Item) -> Sent:
        try:
            data = item.path.read_bytes()
            if not is_dicom(item.path, data):
                return Sent(
                    item.path, "refused", "it isn't a DICOM file; `jpegstow send` takes JPEGs"
                )
            dataset = _read(data)
            verdict = patiently(lambda: store.store_file(data, dataset), pause)
            return _sent(item.path, verdict, str(dataset.SOPInstanceUID))
        except OSError as error:
            return Sent(item.path, "unreadable", type(error).__name__)
        except JpegstowError as error:
            return Sent(item.path, "refused", str(error))

    return send


def is_dicom(path: Path, data: bytes) -> bool:
    """Tell whether a file is a ready DICOM file, by its content or by its name."""
    return data[128:132] == b"DICM" or path.suffix.lower() in DICOM_SUFFIXES


def _send_file(item: Item, data: bytes, store: DicomwebStore) -> Sent:
    if item.said:
        raise BadRequest("attributes can't be set in a ready DICOM file", where=str(item.path))
    dataset = _read(data)
    return _sent(item.path, store.store_file(data, dataset), str(dataset.SOPInstanceUID))


def _read(data: bytes) -> Dataset:
    """Read a DICOM file, which must have a SOP Instance UID."""
    dataset = part10.decode(data)
    if not dataset.get("SOPInstanceUID"):
        raise BadRequest("the DICOM file has no SOP Instance UID")
    return dataset


def _send_jpeg(item: Item, data: bytes, rules: Rules, store: DicomwebStore, template: str) -> Sent:
    (result,) = ingest([upload_of(data, item.said, template)], rules, store)
    if isinstance(result.outcome, JpegstowError):
        raise result.outcome
    name = result.described.instance.sop_instance_uid if result.described else ""
    return _sent(item.path, result.outcome, name)


def _sent(path: Path, verdict: Verdict, name: str) -> Sent:
    match verdict:
        case Stored() as stored:
            return Sent(
                path, "already stored" if stored.duplicate else "stored", stored.warning, name
            )
        case Rejected(reason) | Conflict(reason):
            return Sent(path, "rejected", reason, name)
        case Unavailable(reason):
            return Sent(path, "unavailable", reason, name)
