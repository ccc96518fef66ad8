"""The README is true: its settings, its commands, its files, and whatever it tells to type."""

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import requests
from pydicom import dcmread

from service import settings
from service.cli import main
from tests.jpegs import make_jpeg
from tests.judges import require_tool
from tests.peers import BOUND
from tests.serving import COMMAND, Serving

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\| `jpegstow ([a-z]+)", README, re.MULTILINE)
SHELL = [
    line
    for block in re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]


def test_the_table_of_settings_is_that_of_the_program() -> None:
    _, _, rest = README.partition("<!-- settings -->\n")
    table, mark, _ = rest.partition("\n<!-- end of settings -->")
    assert mark
    assert table == settings.table()


def test_the_table_of_commands_has_them_all() -> None:
    assert sorted(COMMANDS) == main.list_commands(click.Context(main))


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command_are_those_that_it_has(command: str) -> None:
    lines = [line for line in README.splitlines() if f"jpegstow {command}" in line]
    told = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(lines)))
    found = main.get_command(click.Context(main), command)
    assert found
    below = found.commands.values() if isinstance(found, click.Group) else []
    known = {option for each in (found, *below) for one in each.params for option in one.opts}
    assert told - known - {"--help"} == set()


def test_every_word_of_make_is_in_the_makefile() -> None:
    words = set(re.findall(r"`make ([a-z]+)|^make ([a-z]+)", README, re.MULTILINE))
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {word for pair in words for word in pair if word} - targets == set()
    assert ("", "run") in words


def test_every_file_that_it_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^):#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []


def test_every_variable_that_it_sets_is_a_setting() -> None:
    names = re.findall(r"\b([A-Z][A-Z_]+)=", README)
    known = set(re.findall(r"`([A-Z_]+)`", settings.table()))
    assert set(names) - known == set()


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("readme") / "data") as service:
        yield service


@pytest.fixture(scope="module")
def typed(serving: Serving, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Type every curl and jpegstow command in its order; return what each printed."""
    folder = tmp_path_factory.mktemp("typed")
    (folder / "photos").mkdir()
    for number, name in enumerate(("photo.jpg", "photos/a.jpg", "photos/b.jpeg")):
        (folder / name).write_bytes(make_jpeg(seed=number))
    (folder / "pictures.csv").write_text("path,PatientID\nphotos/a.jpg,P-8\nphotos/b.jpeg,P-9\n")
    environment = {
        "PATH": f"{Path(COMMAND).parent}{os.pathsep}{os.environ['PATH']}",
        "DICOMWEB_URL": serving.archive_url,
        "DATA_DIR": str(serving.data_dir),
        "HOME": str(folder),
    }
    printed: dict[str, str] = {"folder": str(folder)}
    for line in filter(re.compile(r"(curl|jpegstow) ").match, SHELL):
        ended = subprocess.run(
            [require_tool("sh"), "-ec", adapted(line, serving)],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND,
        )
        assert ended.returncode == 0, f"{line}: {ended.stdout}{ended.stderr}"
        printed[line] = ended.stdout
        if '"RetrieveURL"' in ended.stdout:
            (instance,) = json.loads(ended.stdout)["instances"]
            environment.setdefault("RETRIEVE_URL", instance["RetrieveURL"])
    return printed | {"RETRIEVE_URL": environment["RETRIEVE_URL"]}


def adapted(line: str, serving: Serving) -> str:
    """Let a command fail where it should, and reach the ports and a study of this test."""
    if "studies/UID" in line:
        found = requests.get(f"{serving.archive_url}/studies?PatientID=P-9", timeout=BOUND)
        line = line.replace("UID", found.json()[0]["0020000D"]["Value"][0])
    line = line.replace(":8080/", f":{serving.port}/").replace(
        ":8042/", f":{serving.archive_port}/"
    )
    return re.sub(r"^curl ", "curl -sS --fail-with-body ", line)


def test_what_it_tells_to_type_stores_a_picture_and_fetches_it_back(typed: dict[str, str]) -> None:
    dataset = dcmread(Path(typed["folder"]) / "photo.dcm")
    (first,) = (line for line in typed if line.startswith("curl -F image=@photo.jpg"))
    (instance,) = json.loads(typed[first])["instances"]
    assert (instance["status"], instance["SOPInstanceUID"]) == (201, dataset.SOPInstanceUID)
    said = dict(re.findall(r"-F ([A-Z]\w+)=(\S+)", first))
    assert said
    assert {keyword: str(dataset[keyword].value) for keyword in said} == said


def test_what_was_stored_can_be_looked_at(typed: dict[str, str]) -> None:
    rendered = requests.get(typed["RETRIEVE_URL"] + "/rendered", timeout=BOUND)
    assert rendered.status_code == 200
    assert rendered.headers["Content-Type"].startswith("image/")


def test_a_bare_picture_is_stored_as_it_tells(typed: dict[str, str]) -> None:
    (line,) = (line for line in typed if "--data-binary" in line)
    assert json.loads(typed[line])["instances"][0]["outcome"] == "stored"


def test_the_files_of_its_examples_are_sent(typed: dict[str, str]) -> None:
    sent = [printed for line, printed in typed.items() if line.startswith("jpegstow send")]
    assert len(sent) == 2
    assert set(sent) == {"2 stored\n"}


def test_what_it_tells_to_find_fetch_prove_and_delete_does_so(typed: dict[str, str]) -> None:
    printed = {line: text for line, text in typed.items() if line.startswith("jpegstow")}
    (copied,) = (int(text.split()[0]) for line, text in printed.items() if "-o copy" in line)
    assert copied >= 4
    assert printed["jpegstow verify copy"] == f"{copied} stored\n"
    assert printed['jpegstow store "copy/**.dcm"'] == f"{copied} already stored\n"
    assert printed["jpegstow delete studies/UID --yes"] == "1 deleted\n"
    (photos,) = (
        text for line, text in printed.items() if line.startswith("jpegstow verify photos")
    )
    assert photos == "2 stored\n"
    assert "P-7" in printed["jpegstow search studies PatientID=P-7"]
