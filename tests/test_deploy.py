"""What deploys the service: Dockerfile, cloudbuild.yaml, and every command of docs/deploy.md."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from service import settings
from tests.judges import find_tool
from tests.peers import BOUND

ROOT = Path(__file__).parents[1]
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
CLOUDBUILD = (ROOT / "cloudbuild.yaml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
GCLOUD = re.compile(r"gcloud .*")

# gcloud's own parser, without what comes behind it: nothing is run, nothing is asked of a network.
PARSE = """
import contextlib, io, json, sys
from googlecloudsdk.gcloud_main import CreateCLI
parser = CreateCLI([])._CLI__parser
refused = {}
for line, words in json.load(sys.stdin).items():
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            parser.parse_args(words)
    except (Exception, SystemExit) as error:
        refused[line] = (said.getvalue() or str(error))[:1000]
json.dump(refused, sys.stdout)
"""


def shell_lines() -> list[str]:
    """Return the lines that the document tells to type, continued ones as one."""
    blocks = re.findall(r"^```sh\n(.*?)^```", DEPLOY, re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ").splitlines()


def names() -> dict[str, str]:
    """Return the variables that it sets; what a command would print is made up."""
    found: dict[str, str] = {}
    for line in shell_lines():
        if match := re.fullmatch(r"([A-Z]+)=(.*)", line):
            value = "1234567890" if "$(" in match[2] else Template(match[2]).substitute(found)
            found[match[1]] = value
    return found


def commands() -> Iterator[str]:
    """Yield each gcloud command, those within another line too, with its variables filled in."""
    for line in shell_lines():
        inner = re.search(r"\$\((gcloud (?:[^()]|\([^()]*\))*)\)", line)
        outer = GCLOUD.search(line)
        text = inner[1] if inner else outer[0] if outer else ""
        if text:
            yield Template(text).substitute(names())


@pytest.fixture(scope="module")
def sdk() -> Path:
    """Return the folder of the Google Cloud CLI, which is in no archive of Debian's."""
    gcloud = find_tool("gcloud")
    if gcloud is None:
        pytest.skip("gcloud isn't installed, and Debian has no package of it")
    return Path(gcloud).resolve().parents[1]


def refused(lines: list[str], sdk: Path, folder: Path) -> dict[str, str]:
    """Return what gcloud's parser doesn't take, with what it says."""
    (bundled,) = [*sdk.glob("platform/bundledpythonunix/bin/python3"), Path(sys.executable)][:1]
    path = os.pathsep.join((str(sdk / "lib"), str(sdk / "lib" / "third_party")))
    ended = subprocess.run(
        [bundled, "-S", "-c", PARSE],
        input=json.dumps({line: shlex.split(line)[1:] for line in lines}),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": path, "CLOUDSDK_CONFIG": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * BOUND,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def test_every_gcloud_command_parses(sdk: Path, tmp_path: Path) -> None:
    lines = list(commands())
    assert len(lines) > 40
    assert refused(lines, sdk, tmp_path) == {}


def test_a_command_or_flag_that_isnt_there_is_refused(sdk: Path, tmp_path: Path) -> None:
    wrong = [
        "gcloud pubsub topics create t --none-such",
        "gcloud pubsub topics create",
        "gcloud run none-such",
    ]
    assert sorted(refused(wrong, sdk, tmp_path)) == sorted(wrong)


def test_every_setting_that_it_gives_is_one_and_is_accepted() -> None:
    (line,) = (line for line in commands() if line.startswith("gcloud run deploy"))
    given = re.findall(r"--set-env-vars=(\S+)", " ".join(shlex.split(line)))
    pairs = [pair.split("=", 1) for group in given for pair in group.split(",")]
    environment = {name: value for name, value in pairs if name != "RETRY_QUEUE"}
    assert len(environment) > 8
    known = set(re.findall(r"`([A-Z_]+)`", settings.table()))
    assert environment.keys() - known == set()
    loaded = settings.load(
        environment | {"UID_NAMESPACE": "a secret text", "K_SERVICE": "jpegstow"}
    )
    (concurrency,) = re.findall(r"--concurrency=(\d+)", line)
    assert int(concurrency) == loaded.workers * loaded.threads
    (timeout,) = re.findall(r"--timeout=(\d+)", line)
    assert loaded.store_deadline < int(timeout)


def test_every_account_that_gets_a_role_is_made_or_is_googles() -> None:
    members = set(re.findall(r"serviceAccount:\$([A-Z]+)", DEPLOY))
    assert members == {"RUNS", "PUSHES", "BUILDS", "PUBSUB", "STORAGE"}
    made = set(re.findall(r"service-accounts create (\S+)", DEPLOY))
    mails = {names()[name].split("@")[0] for name in ("RUNS", "PUSHES", "BUILDS")}
    assert mails == made


def test_what_is_made_is_taken_down() -> None:
    for kind in ("pubsub topics", "pubsub subscriptions", "logging metrics", "secrets"):
        made = set(re.findall(rf"gcloud {kind} create (\S+)", DEPLOY))
        gone = re.findall(rf"gcloud {kind} delete (.+)", DEPLOY)
        assert made, kind
        assert set(" ".join(gone).split()) == made


def test_cloudbuild_is_valid_and_knows_every_substitution() -> None:
    judge = Path(sys.executable).with_name("check-jsonschema")
    arguments = [str(judge), "--builtin-schema", "vendor.cloudbuild", str(ROOT / "cloudbuild.yaml")]
    ended = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=BOUND)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    used = set(re.findall(r"\$\{(_[A-Z]+)\}", CLOUDBUILD))
    given = set(re.findall(r"^  (_[A-Z]+): \S", CLOUDBUILD, re.MULTILINE))
    assert used == given


def test_the_dockerfile_passes_a_linter() -> None:
    judge = Path(sys.executable).with_name("hadolint")
    ended = subprocess.run(
        [judge, ROOT / "Dockerfile"], capture_output=True, text=True, check=False, timeout=BOUND
    )
    assert (ended.returncode, ended.stdout) == (0, "")


def test_the_base_image_is_the_same_everywhere() -> None:
    (base,) = re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE)
    assert f"  _BASE: {base}\n" in CLOUDBUILD
    assert set(re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)) == {"${BASE}"}
