"""Kill an archive at each step of one action, the first, the second and so on, to its end.

python -m tests.archive_walk FOLDER ACTION

FOLDER/prepared is the archive beforehand; FOLDER/N is what is left of a copy whose process killed
itself before the N-th time that it touched a file. A line for each: N, and what was acknowledged.
The last one came to its end. Nothing of the archive's own is replaced: Python tells an audit hook
of each file that is about to be opened, linked, renamed, removed.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from service.archive import Archive, rebuild
from service.dicom import part10
from tests.archive_instances import dicom_file

MOST: Final = 500  # steps; no action has as many
TOUCHED: Final = {
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.truncate",
    "shutil.rmtree",
    "sqlite3.connect",
}

# The archive before: a study of two series, one instance of it NEARLINE, and another study.
STUDY, BESIDE = "1.2.1", "1.2.2"
PREPARED: Final = {
    (STUDY, "1.2.1.1", "1.2.1.1.1"): "STANDARD",
    (STUDY, "1.2.1.1", "1.2.1.1.2"): "NEARLINE",
    (STUDY, "1.2.1.2", "1.2.1.2.1"): "STANDARD",
    (BESIDE, "1.2.2.1", "1.2.2.1.1"): "STANDARD",
}
NEW: Final = {
    "into a series": (STUDY, "1.2.1.1", "1.2.1.1.9"),
    "into a new study": ("1.2.3", "1.2.3.1", "1.2.3.1.1"),
}


def file_of(uids: tuple[str, str, str]) -> bytes:
    """Return the file of an instance, always the same."""
    study, series, instance = uids
    return dicom_file(StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=instance)


def put(archive: Archive, uids: tuple[str, str, str], storage_class: str = "STANDARD") -> object:
    """Store an instance."""
    file = file_of(uids)
    return archive.store([file], part10.decode(file), storage_class)


def copy(source: Path, target: Path) -> None:
    """Copy a folder; what are two names of one file there are so here."""
    subprocess.run(["cp", "-a", source, target], check=True)


def prepare(folder: Path) -> None:
    """Make the archive that every action begins with."""
    archive = Archive(folder)
    for uids, storage_class in PREPARED.items():
        put(archive, uids, storage_class)
    archive.close()


def _store(where: str) -> Callable[[Path], Iterator[str]]:
    def act(root: Path) -> Iterator[str]:
        archive = Archive(root)
        yield ""
        put(archive, NEW[where], "ARCHIVE")
        yield "stored"

    return act


def _delete_instance(root: Path) -> Iterator[str]:
    archive = Archive(root)
    yield ""
    archive.delete(*next(iter(PREPARED)))
    yield "deleted"


def _delete(series: str | None) -> Callable[[Path], Iterator[str]]:
    def act(root: Path) -> Iterator[str]:
        archive = Archive(root)
        yield ""
        operation = archive.begin_delete(STUDY, series, {})
        yield "deleted"
        archive.finish_delete(str(operation))
        yield "finished"

    return act


def _rebuild(root: Path) -> Iterator[str]:
    archive = Archive(root)
    yield ""
    archive.rebuild()
    yield "rebuilt"


def _rebuild_offline(root: Path) -> Iterator[str]:
    yield ""
    rebuild(root)
    yield "rebuilt"


def _open(root: Path) -> Iterator[str]:
    yield ""
    Archive(root).close()
    yield "opened"


ACTIONS: Final = {
    "store into a series": _store("into a series"),
    "store into a new study": _store("into a new study"),
    "delete an instance": _delete_instance,
    "delete a series": _delete("1.2.1.1"),
    "delete a study": _delete(None),
    "rebuild": _rebuild,
    "rebuild while nobody uses it": _rebuild_offline,
    "open": _open,
}


def die_before(step: int, root: Path) -> None:
    """Kill this process before it touches a file below a folder for the `step`-th time."""
    left = [step]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event in TOUCHED or (event == "open" and _is_below(arguments[0], root)):
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def _is_below(path: object, root: Path) -> bool:
    """Tell whether a path is below a folder; rmtree's are relative to what it removes."""
    text = os.fsdecode(path) if isinstance(path, str | bytes | os.PathLike) else ""
    return text.startswith(str(root)) or (text != "" and not text.startswith("/"))


def act(action: str, root: Path, step: int, pipe: int) -> None:
    """Do an action up to a step, and write what is acknowledged on the way."""
    steps = ACTIONS[action](root)
    next(steps)
    die_before(step, root)
    for acknowledged in steps:
        os.write(pipe, f" {acknowledged}".encode())


def walked(action: str, root: Path, step: int) -> tuple[bool, str]:
    """Let a child do it; return whether it came to its end, and what it acknowledged."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act(action, root, step, writer)
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        acknowledged = pipe.read()
    _, status = os.waitpid(child, 0)
    return not os.WIFSIGNALED(status), acknowledged


def main() -> None:
    folder, action = Path(sys.argv[1]), sys.argv[2]
    for step in range(1, MOST):
        root = folder / str(step)
        copy(folder / "prepared", root)
        ended, acknowledged = walked(action, root, step)
        print(step, acknowledged.strip(), flush=True)
        if ended:
            return
    sys.exit(f"not at its end after {MOST} steps")


if __name__ == "__main__":
    main()
