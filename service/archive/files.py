"""Where an instance lies on disk.

root/
    instances/STUDY/SERIES/SOP.dcm
    instances/STUDY/SERIES/SOP.class    its storage class, if that isn't STANDARD
    incoming/        files that aren't whole yet, or whose rows aren't there yet
    deleting/, outgoing/, operations/    what is deleted: see `deletion`
    index.sqlite
    write.lock       held by the one thread of all processes that changes files and index
    alive.lock       shared by every process that has the archive open
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from service.dicom.uid import is_uid
from service.settings import STORAGE_CLASSES


class InstanceUids(NamedTuple):
    """The key of an instance: Study, Series and SOP Instance UID."""

    study: str
    series: str
    instance: str

    def path(self, instances: Path) -> Path:
        """Return where the file lies under the folder `instances`.

        Raises
        ------
        ValueError
            If any of the three isn't a UID.
        """
        if not all(map(is_uid, self)):
            raise ValueError("not a UID")
        return instances / self.study / self.series / f"{self.instance}.dcm"


def targets(
    instances: Path, study: str, series: str | None = None, instance: str | None = None
) -> list[Path]:
    """Return what the folder `instances` holds of a study, a series or an instance, if it does."""
    if series is None or instance is None:
        return [instances / study / (series or "")]
    path = InstanceUids(study, series, instance).path(instances)
    return [path, class_path(path)]


def class_path(path: Path) -> Path:
    """Return where the storage class of an instance stands, if it isn't STANDARD."""
    return path.with_suffix(".class")


def storage_class(path: Path) -> str:
    """Return the storage class of an instance by its file's path."""
    try:
        text = class_path(path).read_text("ascii", "replace").strip()
    except FileNotFoundError:
        return STORAGE_CLASSES[0]
    return text if text in STORAGE_CLASSES else STORAGE_CLASSES[0]


def stored_files(instances: Path) -> Iterator[tuple[InstanceUids, Path]]:
    """Yield every file whose path is that of an instance, in the order of the UIDs."""
    for study in _sorted(instances):
        for series in _sorted(study):
            for path in _sorted(series):
                uids = InstanceUids(study.name, series.name, path.stem)
                if path.suffix == ".dcm" and all(map(is_uid, uids)):
                    yield uids, path


def _sorted(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []
