"""Imports point one way, as the table says; dicom/ is bytes in, values out."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SERVICE = Path(__file__).parents[1] / "service"
LEAVES = {"errors", "settings", "telemetry", "counting", "tracing"}
KEEPING = {"database", "durable"}
ASKING = {"parallel", "patience", "store"}
LINE = LEAVES | {"dicom", "ingest"}
MAY_IMPORT = {
    "__init__": set(),
    "__main__": {"loading", "cli", "wsgi"},
    "loading": set(),
    "errors": set(),
    "settings": {"errors", "settings"},
    "tracing": set(),
    "telemetry": {"errors", "settings", "tracing"},
    "tally": {"telemetry"},
    "counting": {"tally", "tracing"},
    "spans": {"telemetry", "tracing"},
    "observing": LEAVES | {"spans"},
    "operation": LINE | {"observing"},
    "dicom": {"errors", "dicom"},
    "database": set(),
    "durable": {"dicom"},
    "parallel": set(),
    "patience": {"dicom"},
    "terminal": set(),
    "texts": set(),
    "ingest": LINE,
    "store": LINE | {"patience", "store"},
    "archive": LEAVES | KEEPING | {"dicom", "archive"},
    "retry": LINE | KEEPING | {"terminal", "retry"},
    "tokens": {"errors"},
    "gcp": LINE | {"retry", "gcp", "tokens"},
    "assemble": LINE | {"store", "archive", "retry", "gcp", "access", "tokens", "durable"},
    "receive": LINE,
    "answers": {"errors"},
    "worker": {"answers", "telemetry"},
    "metrics": {"retry", "counting", "tally"},
    "access": LEAVES | {"answers", "dicom", "durable", "texts", "tokens", "access"},
    "routing": set(),
    "web": LINE | {"store", "retry", "receive", "answers", "queue_api", "routing"},
    "push_api": {"errors", "gcp"},
    "queue_api": LINE | {"retry", "answers", "metrics"},
    "description": {"description"},
    "pages": LINE | {"store", "retry", "answers", "texts", "pages"},
    "processes": {"settings", "telemetry", "loading"},
    "sending": LINE | ASKING | {"sending"},
    "fetching": LINE | ASKING | {"durable", "fetching"},
    "deleting": LINE | ASKING | {"deleting"},
    "verifying": LINE | ASKING | {"sending", "verifying"},
    "census": LINE | {"sending", "census"},
    "dicomweb": LEAVES | {"dicom", "archive", "dicomweb", "worker"},
    "wsgi": LEAVES
    | {"loading", "assemble", "web", "push_api", "operation", "description", "archive", "dicomweb"}
    | {"access", "pages", "retry"},
}
MAY_IMPORT["cli"] = {*MAY_IMPORT, "cli"}
NETWORK = {"asyncio", "http", "logging", "socket", "urllib"}
MACHINE = {"os", "pathlib", "shutil", "sqlite3", "subprocess", "tempfile"}
CLOCK_AND_CHANCE = {"random", "secrets", "time"}
FOREIGN = {"ctypes", "threading", "concurrent", "multiprocessing", "mmap"}
IMPURE = NETWORK | MACHINE | CLOCK_AND_CHANCE | FOREIGN
PURE = sys.stdlib_module_names - IMPURE | {"service", "pydicom"}
# What one module of dicom/ has for all the others.
ALLOWED = {
    "jpegtran.py": {"ctypes"},  # libturbojpeg, whose functions take bytes and give bytes
    "budget.py": {"threading"},  # memory is bounded by letting threads wait
    "raster.py": {"PIL"},  # slow to import, and needed for odd pictures only
}


def test_imports_point_one_way() -> None:
    files = sorted(SERVICE.rglob("*.py"))
    layers = {file.relative_to(SERVICE).parts[0].removesuffix(".py") for file in files}
    assert layers - set(MAY_IMPORT) == set(), "a new module needs its place in the table"
    found = [b for file in files for b in breaches(file.relative_to(SERVICE), file.read_text())]
    assert found == []


def test_a_breach_is_found_with_its_file_and_line() -> None:
    source = (
        "import json\nfrom service.store import send\ndef late():\n    import PIL, os\nimport PIL\n"
        "import ctypes, threading\n"
    )
    assert list(breaches(Path("dicom/raster.py"), source)) == [
        "service/dicom/raster.py:2 imports service.store.send",
        "service/dicom/raster.py:5 imports PIL",
        "service/dicom/raster.py:6 imports ctypes",
        "service/dicom/raster.py:6 imports threading",
        "service/dicom/raster.py:4 imports os",
    ]


@pytest.mark.parametrize(("module", "packages"), ALLOWED.items())
def test_what_one_module_may_import_no_other_may(module: str, packages: set[str]) -> None:
    source = "".join(f"def late():\n    import {package}\n" for package in packages)
    assert list(breaches(Path("dicom") / module, source)) == []
    assert len(list(breaches(Path("dicom/jpeg.py"), source))) == len(packages)
    assert (SERVICE / "dicom" / module).exists()


def breaches(path: Path, source: str) -> Iterator[str]:
    layer = path.parts[0].removesuffix(".py")
    allowed = MAY_IMPORT[layer] | {"__version__"}
    for line, column, name in imports(ast.parse(source)):
        package, module = [*name.split("."), "__version__"][:2]
        own = package in ALLOWED.get(path.name, ()) and (package != "PIL" or column > 0)
        pure = package in PURE or own
        inward = package != "service" or module in allowed
        if not inward or (layer == "dicom" and not pure):
            yield f"service/{path}:{line} imports {name}"


def imports(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            prefix = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                yield node.lineno, node.col_offset, prefix + alias.name
