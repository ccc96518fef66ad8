"""What holds for the project as a whole: its files, its locks, its version, its budgets."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest

import service
from tests.judges import require_tool

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock")
PIN = re.compile(
    r"^[a-z0-9][a-z0-9.-]*==\S+( ; .+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n", re.MULTILINE
)

# Put together from pieces, so that this file doesn't hold what it looks for.
REGISTRIES = [
    "pypi" + ".org",
    "python" + "hosted.org",
    "index" + "-url",
    "registry" + ".npmjs.org",
    "registry" + "-1.docker.io",
    "deb" + ".debian.org",
]
MACHINE_PATH = re.compile(r"(?<![\w./~-])/(?:home|root|Users|work)/(?=\w)")
NOTES = ["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK", "(?i:issue|pull request) #?[0-9]"]
UNFINISHED = re.compile("|".join(NOTES))

MAX_LINES = 60
MAX_PARAMETERS = 6
VAGUE = {"utils", "helpers", "common", "base", "manager", "factory", "misc"}


def project_files() -> list[Path]:
    """List what git knows or would add."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no git checkout")
    git = [require_tool("git"), "-c", f"safe.directory={ROOT}", "-C", str(ROOT)]
    listing = [*git, "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, capture_output=True, check=True, text=True).stdout
    return [ROOT / name for name in names.split("\0") if (ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """Yield every line of every text file, after its place."""
    for path in project_files():
        content = path.read_bytes()
        if b"\0" not in content:
            for number, line in enumerate(content.decode(errors="replace").splitlines(), 1):
                yield f"{path.relative_to(ROOT)}:{number}", line


def test_no_file_names_a_registry_or_a_machine() -> None:
    found = [
        f"{place}: {line.strip()[:100]}"
        for place, line in texts()
        if any(name in line for name in REGISTRIES) or MACHINE_PATH.search(line)
    ]
    assert found == []


def test_no_file_holds_a_note_that_belongs_in_the_tracker() -> None:
    assert [place for place, line in texts() if UNFINISHED.search(line)] == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("see /" + "home/alice/x", True),
        ("https://example.org/home/x", False),
        ("GET /v1/instances", False),
        ("WORKDIR /app", False),
    ],
)
def test_a_path_of_a_machine_is_told_from_a_url(line: str, found: bool) -> None:  # noqa: FBT001
    assert bool(MACHINE_PATH.search(line)) is found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_file_holds_pins_with_hashes_and_nothing_else(name: str) -> None:
    assert PIN.sub("", (ROOT / name).read_text()) == ""


def test_development_uses_the_pins_that_are_shipped() -> None:
    shipped, development = ((ROOT / name).read_text() for name in LOCKS)
    pins = [match.group() for match in PIN.finditer(shipped)]
    assert len(pins) > 10
    assert [pin.split()[0] for pin in pins if pin not in development] == []


def test_the_changelog_begins_with_this_version_or_unreleased() -> None:
    headings = re.findall(r"^## \[?([^]\s]+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in {service.__version__, "Unreleased"}


def test_the_version_stands_in_one_place() -> None:
    assert not re.search(r"^version\s*=", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assignments = [
        path
        for path in (ROOT / "service").rglob("*.py")
        if re.search(r"^__version__\s*=", path.read_text(), re.MULTILINE)
    ]
    assert assignments == [ROOT / "service" / "__init__.py"]


def test_the_wheel_has_every_file_of_the_service_and_the_templates(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    packed = set(ZipFile(wheel).namelist())
    here = {path.relative_to(ROOT).as_posix() for path in project_files()}
    wanted = {name for name in here if name.startswith("service/")}
    wanted |= {f"service/{name}" for name in here if name.startswith("templates/")}
    assert "service/openapi.yaml" in wanted
    assert wanted - packed == set()


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sorted((ROOT / "service").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def test_functions_are_short_and_take_few_parameters() -> None:
    long = [name for name, node in functions() if lines(node) > MAX_LINES]
    wide = [name for name, node in functions() if parameters(node) > MAX_PARAMETERS]
    assert (long, wide) == ([], [])


def lines(node: ast.FunctionDef) -> int:
    """Count the lines of the statements, without the docstring."""
    has_docstring = ast.get_docstring(node, clean=False) is not None
    body = node.body[1:] if has_docstring else node.body
    return (node.end_lineno or 0) - body[0].lineno + 1 if body else 0


def parameters(node: ast.FunctionDef) -> int:
    arguments = node.args.posonlyargs + node.args.args + node.args.kwonlyargs
    return len([each for each in arguments if each.arg not in {"self", "cls"}])


def test_modules_are_named_after_what_they_do() -> None:
    names = {path.stem for path in (ROOT / "service").rglob("*.py")}
    assert names & VAGUE == set()
