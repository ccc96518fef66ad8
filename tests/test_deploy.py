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
from typing import Any

import pytest

from service import settings
from service.settings import CloudQueue
from tests.judges import find_tool
from tests.peers import BOUND
from tests.peers.pubsub import PubSub, Topic

ROOT = Path(__file__).parents[1]
DEPLOY = (ROOT / "docs" / "deploy.md").read_text()
CLOUDBUILD = (ROOT / "cloudbuild.yaml").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
README = (ROOT / "README.md").read_text()
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
INNER = re.compile(r"\$\((gcloud (?:[^()]|\([^()]*\))*)\)")
REPEATABLE = {"--set-env-vars"}

# gcloud's own parser, without what comes behind it: nothing is run, nothing is asked of a network.
PARSE = """
import contextlib, io, json, sys
from googlecloudsdk.gcloud_main import CreateCLI
parser = CreateCLI([])._CLI__parser
found = {}
for line, words in json.load(sys.stdin).items():
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            read = vars(parser.parse_args(words))
        found[line] = {"set_env_vars": read.get("set_env_vars")}
    except (Exception, SystemExit) as error:
        found[line] = {"refused": (said.getvalue() or str(error))[:1000]}
json.dump(found, sys.stdout)
"""

# As a shell would run them one by one, but in one process; what they print isn't looked at.
RUN = """
import contextlib, io, json, sys
from googlecloudsdk.gcloud_main import CreateCLI
found = {}
for line, words in json.load(sys.stdin).items():
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            CreateCLI([]).Execute(words)
        found[line] = {}
    except (Exception, SystemExit) as error:
        found[line] = {} if getattr(error, "code", 1) == 0 else {"refused": repr(error)}
json.dump(found, sys.stdout)
"""


def shell_lines() -> list[str]:
    """Return the lines that the document tells to type, continued ones as one."""
    return "".join(SHELL.findall(DEPLOY)).replace("\\\n", " ").splitlines()


def names() -> dict[str, str]:
    """Return the variables that it sets; what a command would print is made up."""
    found: dict[str, str] = {}
    for line in shell_lines():
        if match := re.fullmatch(r"([A-Z]+)=(.*)", line):
            value = "1234567890" if "$(" in match[2] else Template(match[2]).substitute(found)
            found[match[1]] = value
    return found


def commands() -> Iterator[list[str]]:
    """Yield the words of each gcloud command to type, with its variables filled in."""
    for line in shell_lines():
        text = line
        while inner := INNER.search(text):
            yield from simple(inner[1])
            text = text.replace(inner[0], "printed")
        yield from simple(text)


def simple(text: str) -> Iterator[list[str]]:
    """Yield the words of those of a line's commands that are gcloud's."""
    if "gcloud" not in text:
        return
    lexer = shlex.shlex(Template(text).substitute(names()), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    for token in [*lexer, ";"]:
        if set(token) <= set("();<>|&"):
            if words[:1] == ["gcloud"]:
                yield words
            words = []
        else:
            words.append(token)


def mentioned() -> list[list[str]]:
    """Return the commands within sentences, and those of cloudbuild.yaml."""
    said = [*re.findall(r"`(gcloud [^`]+)`", DEPLOY + README)]
    said += re.findall(r"^#\s+(gcloud .*)", CLOUDBUILD, re.MULTILINE)
    steps = re.findall(r"entrypoint: gcloud\n    args: \[(.*)\]", CLOUDBUILD)
    assert len(steps) == CLOUDBUILD.count("gcloud\n") == 2
    return [*map(shlex.split, said)] + [
        ["gcloud", *shlex.split(step.replace(",", " "))] for step in steps
    ]


@pytest.fixture(scope="module")
def sdk() -> Path:
    """Return the folder of the Google Cloud CLI, which is in no archive of Debian's."""
    gcloud = find_tool("gcloud")
    if gcloud is None:
        pytest.skip("gcloud isn't installed, and Debian has no package of it")
    return Path(gcloud).resolve().parents[1]


def asked(
    script: str, lines: list[list[str]], sdk: Path, folder: Path, **environment: str
) -> dict[str, dict[str, Any]]:
    """Return what a script within gcloud's own Python tells of each command."""
    (bundled,) = [*sdk.glob("platform/bundledpythonunix/bin/python3"), Path(sys.executable)][:1]
    path = os.pathsep.join((str(sdk / "lib"), str(sdk / "lib" / "third_party")))
    clean = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "CLOUDSDK_CONFIG": str(folder)}
    ended = subprocess.run(
        [bundled, "-S", "-c", script],
        input=json.dumps({shlex.join(line): line[1:] for line in lines}),
        env=clean | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=4 * BOUND,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = json.loads(ended.stdout.splitlines()[-1])
    assert isinstance(found, dict)
    return found


def refused(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Return the commands that gcloud doesn't take, with what it says."""
    return {line: told["refused"] for line, told in found.items() if "refused" in told}


def test_no_command_of_the_document_is_overlooked() -> None:
    assert set(re.findall(r"^```(.*)$", DEPLOY, re.MULTILINE)) == {"sh", ""}
    drawn = re.sub(SHELL, "", DEPLOY)
    within = re.findall(r"`gcloud [^`]+`", drawn)
    assert drawn.count("gcloud ") == len(within)
    lines = shell_lines()
    assert [line for line in lines if "<<" in line or line.rstrip().endswith("\\")] == []
    found = list(commands())
    assert len(found) == sum(line.count("gcloud ") for line in lines)
    assert len(found) > 50


def test_a_shell_reads_every_block_of_the_document() -> None:
    for block in SHELL.findall(DEPLOY):
        subprocess.run(["sh", "-n"], input=block, text=True, check=True, timeout=BOUND)


def test_every_gcloud_command_parses(sdk: Path, tmp_path: Path) -> None:
    lines = [*commands(), *mentioned()]
    assert refused(asked(PARSE, lines, sdk, tmp_path)) == {}


def test_no_flag_is_given_twice_where_the_last_would_count() -> None:
    for words in commands():
        flags = [word.partition("=")[0] for word in words if word.startswith("--")]
        assert {flag for flag in flags if flags.count(flag) > 1} <= REPEATABLE, words


def test_a_command_or_flag_that_isnt_there_is_refused(sdk: Path, tmp_path: Path) -> None:
    wrong = [
        "gcloud pubsub topics create t --none-such",
        "gcloud pubsub topics create",
        "gcloud run none-such",
        "gcloud run deploy s --startup-probe=none.such=/healthz",
        "gcloud beta services identity create --service=s --none-such",
        "gcloud alpha monitoring policies create --none-such",
        "gcloud alpha none-such",
    ]
    found = asked(PARSE, [shlex.split(line) for line in wrong], sdk, tmp_path)
    assert sorted(refused(found)) == sorted(wrong)


def test_gcloud_reads_the_settings_as_they_are_meant(sdk: Path, tmp_path: Path) -> None:
    (line,) = deployments()
    (told,) = asked(PARSE, [line], sdk, tmp_path).values()
    assert told["set_env_vars"] == given(line)


def test_the_emulator_takes_every_command_of_pub_sub_and_nothing_is_left(
    sdk: Path, tmp_path: Path
) -> None:
    lines = [words for words in commands() if words[1] == "pubsub"]
    lines = [words for words in lines if "add-iam-policy-binding" not in words]  # it has no rights
    # The emulator keeps messages for a week at most, Google for a month.
    lines = [[word.replace("=31d", "=7d") for word in words] for words in lines]
    assert len(lines) > 8
    place = next(place for place, words in enumerate(lines) if words[3] == "pull")
    project = f"projects/{names()['PROJECT']}"
    with PubSub(tmp_path) as pubsub:
        environment = {
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_PUBSUB": f"http://{pubsub.host}/",
            "CLOUDSDK_AUTH_ACCESS_TOKEN": "none",
            "CLOUDSDK_CORE_PROJECT": names()["PROJECT"],
        }
        assert refused(asked(RUN, lines[:place], sdk, tmp_path, **environment)) == {}
        Topic(pubsub, f"{project}/topics/jpegstow-dead").publish(b"not to wait for one")
        assert refused(asked(RUN, lines[place:], sdk, tmp_path, **environment)) == {}
        left = [pubsub.ask("GET", f"{project}/{kind}") for kind in ("topics", "subscriptions")]
    assert left == [{}, {}]


def deployments() -> list[list[str]]:
    return [words for words in commands() if words[1:3] == ["run", "deploy"]]


def given(line: list[str]) -> dict[str, str]:
    """Return the settings that a deployment gives."""
    groups = [word.partition("=")[2] for word in line if word.startswith("--set-env-vars=")]
    return dict(pair.split("=", 1) for group in groups for pair in group.split(","))


def test_every_setting_that_it_gives_is_one_and_is_accepted() -> None:
    (line,) = deployments()
    environment = given(line)
    assert len(environment) > 8
    known = set(re.findall(r"`([A-Z_]+)`", settings.table()))
    assert environment.keys() - known == set()
    loaded = settings.load(
        environment | {"UID_NAMESPACE": "a secret text", "K_SERVICE": "jpegstow"}
    )
    flags = dict(word.split("=", 1) for word in line if word.startswith("--") and "=" in word)
    assert int(flags["--concurrency"]) == loaded.workers * loaded.threads
    assert loaded.store_deadline < int(flags["--timeout"])
    project = names()["PROJECT"]
    assert loaded.queue_place == CloudQueue(
        f"projects/{project}/topics/jpegstow-retry", f"gs://{names()['QUEUE']}", "queue", ""
    )


def test_every_account_that_gets_a_role_is_made_or_is_googles() -> None:
    members = set(re.findall(r"serviceAccount:\$([A-Z]+)", DEPLOY))
    assert members == {"RUNS", "PUSHES", "BUILDS", "PUBSUB", "STORAGE"}
    made = set(re.findall(r"service-accounts create (\S+)", DEPLOY))
    mails = {names()[name].split("@")[0] for name in ("RUNS", "PUSHES", "BUILDS")}
    assert mails == made


def named(verb: str) -> dict[str, set[str]]:
    """Return what commands with a verb name, by its kind; an account's mail as its name."""
    found: dict[str, set[str]] = {}
    for words in commands():
        if verb in words:
            place = words.index(verb)
            things = [word.split("@")[0] for word in words[place + 1 :] if word[:2] != "--"]
            found.setdefault(" ".join(words[1:place]), set()).update(things)
    return found


def test_what_is_made_is_taken_down() -> None:
    made, gone = named("create"), named("delete")
    made |= {"run services": named("deploy")["run"]}
    gone |= {"storage buckets": named("rm")["storage"]}
    del made["beta services identity"]  # Google's own
    made["scheduler jobs"].remove("http")  # their kind
    del made["healthcare dicom-stores"]  # it goes with its dataset
    assert {"alpha monitoring policies": {"printed"}}.items() <= gone.items()
    made["alpha monitoring policies"] = {"printed"}
    assert made == gone


def test_every_right_in_the_project_is_taken_back() -> None:
    lines = [words[2:] for words in commands() if words[1] == "projects"]
    granted, taken = (
        [words[1:] for words in lines if words[0] == f"{verb}-iam-policy-binding"]
        for verb in ("add", "remove")
    )
    assert granted
    assert granted == taken


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
    stages = re.findall(r"^FROM (\S+)(?: AS (\S+))?", DOCKERFILE, re.MULTILINE)
    assert {base for base, _ in stages} - {name for _, name in stages} == {"${BASE}"}
    assert stages[-1] == ("service", "")
