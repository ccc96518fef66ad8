"""The programs of others that judge what jpegstow makes."""

import ctypes
import os
import shutil

import pytest

# What is looked for, and the Debian package that brings it.
TOOLS = {
    "dciodvfy": "dicom3tools",
    "dcmdump": "dcmtk",
    "chromium": "chromium",
    "cjpeg": "libjpeg-turbo-progs",
    "djpeg": "libjpeg-turbo-progs",
    "exiftool": "libimage-exiftool-perl",
    "gdcminfo": "libgdcm-tools",
    "Orthanc": "orthanc",
    "libOrthancDicomWeb.so": "orthanc-dicomweb",
    "libturbojpeg.so.0": "libturbojpeg0",
    "curl": "curl",
    "node": "nodejs",
    "promtool": "prometheus",
}
# Debian keeps daemons where an ordinary user's PATH doesn't look.
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/share/orthanc/plugins"))


def find_tool(name: str) -> str | None:
    """Return the path of a program or plugin, or the name of a library that loads."""
    if ".so." in name:
        return name if _loads(name) else None
    # A plugin is a file that needs no permission to be executed.
    return shutil.which(name, os.F_OK | os.R_OK, _PATH)


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def missing_tools() -> list[str]:
    """Name what isn't installed, with its Debian package."""
    return [f"{tool} ({package})" for tool, package in TOOLS.items() if not find_tool(tool)]


def require_tool(name: str) -> str:
    """Return the path of a tool; without it skip the test, or fail it where CI is set."""
    path = find_tool(name)
    if path is None:
        missing = f"{name} isn't installed: apt-get install {TOOLS.get(name, name)}"
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing, allow_module_level=True)  # some modules make their cases with it
    return path
