"""Where an instance lies on disk.

root/
    instances/STUDY/SERIES/SOP.dcm
    incoming/        files that aren't whole yet
    index.sqlite
    write.lock       held by the one thread of all processes that changes files and index
    alive.lock       shared by every process that has the archive open
"""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from service.dicom.uid import is_uid


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


def remove(target: Path, instances: Path) -> None:
    """Remove a file, a series or a study, and the folders above it that this leaves empty."""
    if target.is_dir():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    for folder in target.parents:
        if folder == instances:
            return
        with suppress(OSError):  # not empty, or not there
            folder.rmdir()


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
