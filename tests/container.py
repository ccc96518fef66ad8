"""An image without a container engine: its base, its build, and its processes on a read-only root.

Nothing of this machine gets into the repository: where packages come from is what pip and apt are
told here.
"""

import json
import os
import platform
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from tests.judges import require_tool
from tests.peers import BOUND
from tests.processes import kill, start, tree, wait_until

ROOT = Path(__file__).parents[1]
SUITE = "bookworm"
PACKAGES = "python3,python3-venv"
BUILD_BOUND = 600.0  # seconds
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")

# How the names of pip's options end that say where packages are, and how they are reached.
_REACHING_PACKAGES = (
    "-url",
    "-links",
    "no-index",
    "trusted-host",
    "cert",
    "proxy",
    "timeout",
    "retries",
)

# Shells are hidden; all is read-only but the volume and what every engine gives: /dev and /proc.
_ENTER = """
mount --bind "$1" "$1"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
mount -t tmpfs -o "uid=${2%:*},gid=${2#*:}" tmpfs "$1/data"
for shell in dash bash; do mount --bind /dev/null "$1/usr/bin/$shell"; done
mount -o remount,bind,ro "$1"
root=$1 user=$2; shift 2
exec chroot --userspec="$user" --groups= "$root" "$@"
"""


def _run(*command: str | Path, **environment: str) -> str:
    ended = subprocess.run(
        command,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_BOUND,
    )
    assert ended.returncode == 0, f"{command[0]}: {(ended.stdout + ended.stderr)[-3000:]}"
    return ended.stdout


def require_root() -> None:
    """Skip the test of an ordinary user, or fail it where CI is set."""
    if os.geteuid() != 0:
        report = pytest.fail if os.environ.get("CI") else pytest.skip
        report("to build and enter an image without a container engine takes root")


class Images:
    """A store of images in a folder of its own, with the Dockerfile's image in it."""

    def __init__(self, folder: Path) -> None:
        store = ["--root", str(folder / "images"), "--runroot", str(folder / "run")]
        self._buildah = [require_tool("buildah"), *store, "--storage-driver", "vfs"]
        self._folder = folder

    def _call(self, *arguments: str | Path) -> str:
        return _run(*self._buildah, *arguments, BUILDAH_ISOLATION="chroot").strip()

    def build(self) -> "Image":
        """Build the image as `make image` does, on a base of our own."""
        self._base()
        volumes = [f"--volume={source}:{target}:ro" for source, target in self._mounts().items()]
        base = ["--build-arg", "BASE=localhost/base"]
        self._call("build", "--format=docker", *base, *volumes, "--tag", "jpegstow", ROOT)
        container = self._call("from", "localhost/jpegstow")
        told = json.loads(self._call("inspect", "--type=image", "localhost/jpegstow"))
        return Image(Path(self._call("mount", container)), told["Docker"]["config"])

    def _base(self) -> None:
        container = self._call("from", "scratch")
        self._call("add", "--quiet", container, _base_archive(), "/")
        self._call("commit", "--quiet", "--format=docker", "--rm", container, "localhost/base")

    def _mounts(self) -> dict[Path, Path]:
        """Return what a build sees of this machine: how it reaches packages, and local ones."""
        pip, apt = self._folder / "pip.conf", self._folder / "apt.conf"
        options = dict(_pip_options())
        pip.write_text("[global]\n" + "".join(f"{k} = {v}\n" for k, v in options.items()))
        dump = _run(require_tool("apt-config"), "dump").splitlines()
        wanted = ("Acquire::http", "Acquire::https", "Acquire::Check")
        apt.write_text("".join(f"{line}\n" for line in dump if line.startswith(wanted)))
        mounts = {pip: Path("/etc/pip.conf"), apt: Path("/etc/apt/apt.conf.d/99host")}
        places = " ".join(
            value for name, value in options.items() if name.endswith(("-links", "-url"))
        )
        local = [Path(url2pathname(urlsplit(place).path)) for place in places.split()
                 if urlsplit(place).scheme in {"", "file"}]  # fmt: skip
        certificates = [Path(options.get("cert", CERTIFICATES))]
        shared = {path if path.is_file() else path.parent for path in [*local, *certificates]}
        return mounts | {path: path for path in shared if path.exists()}


def _pip_options() -> list[tuple[str, str]]:
    """List what pip is told here of where packages come from; what else it is told stays here."""
    listed = _run(require_tool("python3"), "-m", "pip", "config", "list").splitlines()
    pairs = [line.partition("=") for line in listed]
    options = [(name.rpartition(".")[2], value.strip("'\"")) for name, _, value in pairs]
    return [(name, value) for name, value in options if name.endswith(_REACHING_PACKAGES)]


def _base_archive() -> Path:
    """Return a Debian with Python as a tar file, which is made once and kept in the cache."""
    named = sha256(f"{SUITE} {PACKAGES}".encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jpegstow"
    archive = cache / f"{SUITE}-{platform.machine()}-{named}.tar"
    if not archive.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            draft = Path(folder) / "base.tar"
            _bootstrap(Path(folder) / "root", draft)
            draft.replace(archive)
    return archive


def _bootstrap(root: Path, archive: Path) -> None:
    form = "$(REPO_URI) $(CODENAME)"
    known = _run(require_tool("apt-get"), "indextargets", "--format", form).splitlines()
    mirrors = [line.split()[0] for line in known if line.split()[1:] == [SUITE]][:1]
    options = ["--variant=minbase", f"--include={PACKAGES}"]
    _run(require_tool("debootstrap"), *options, SUITE, root, *mirrors)
    for spent in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / spent)
        (root / spent).mkdir()
    for bytecode in root.rglob("*.pyc"):  # which the official images don't have either
        bytecode.unlink()
    _run(require_tool("tar"), "-C", root, "-cf", archive, ".")


class Image:
    """A built image: the folder of its root file system, and how it says it is to be run."""

    def __init__(self, root: Path, config: dict[str, Any]) -> None:
        self.root = root
        self.config = config

    def size(self) -> int:
        """Return its bytes."""
        return sum(p.lstat().st_size for p in self.root.rglob("*") if not p.is_symlink())

    def command(self, *arguments: str) -> list[str]:
        """Return what the image runs, with arguments in the place of its own if there are any."""
        return [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]

    def entered(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs one inside, as the first process of its own."""
        inside = ["sh", "-euc", _ENTER, "sh", str(self.root), self.config["User"], *command]
        return [require_tool("unshare"), "--mount", "--pid", "--fork", *inside]

    def environment(self, **given: str) -> dict[str, str]:
        """Return the image's environment with what is given besides."""
        own = dict(pair.split("=", 1) for pair in self.config["Env"])
        return own | given

    def run(self, command: Sequence[str], **given: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.entered(command),
            env=self.environment(**given),
            capture_output=True,
            text=True,
            check=False,
            timeout=BOUND,
        )


class Container:
    """A command that runs in an image until the block ends."""

    def __init__(self, image: Image, command: Sequence[str], log: Path, **given: str) -> None:
        self._command, self._given = image.entered(command), image.environment(**given)
        self.log = log

    def __enter__(self) -> Self:
        """Start it."""
        self.process = start(self._command, self.log, self._given)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill its first process, and with that all others."""
        if self.process.poll() is None:
            kill(tree(self.process.pid)[1:2])
            self.process.wait(BOUND)

    def alive(self) -> bool:
        """Tell whether it still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Send SIGTERM to its first process, as an engine does."""
        wait_until(lambda: len(tree(self.process.pid)) > 1)
        os.kill(tree(self.process.pid)[1], signal.SIGTERM)
