"""What schemathesis needs to know of this API beside its description: pictures, and names.

It loads this file itself, as SCHEMATHESIS_HOOKS names it; ENTRIES holds ids that the queue has.
"""

import os
from dataclasses import replace
from typing import Any

import schemathesis
from hypothesis import strategies as st
from schemathesis.openapi import format as of_format
from schemathesis.openapi import media_type

from tests.jpegs import make_jpeg

_JPEG = make_jpeg(16, 16)
_PICTURES = [
    _JPEG,
    make_jpeg(16, 24, orientation=6),
    make_jpeg(17, 9, orientation=3),
    make_jpeg(16, 16, "L", progressive=True),
    make_jpeg(16, 16, "CMYK"),
    _JPEG[:-1],
    _JPEG[:200],
    b"GIF89a no picture",
    b"\xff\xd8\xff",
    b"",
]
_SAID = {
    "PatientID": "P-7",
    "PatientName": "Doe^Jane",
    "StudyDate": "20261127",
    "BodyPartExamined": "HAND",
    "StudyInstanceUID": "2.25.1",
    "ImageLaterality": "L",
    "Rows": "7",
    "PatientSex": "?",
    "AnatomicRegionSequence": "forearm",
    "StudyDescription": "\N{SNOWMAN}",
}
_OWN = {"metadata", "template"}

pictures = st.sampled_from(_PICTURES) | st.binary(max_size=64)
media_type("image/jpeg", pictures)
media_type("application/octet-stream", pictures)
of_format("entry", st.sampled_from([*os.environ.get("ENTRIES", "").split(), "2.25.1"]))


@schemathesis.hook
def map_query(context: schemathesis.HookContext, query: Any) -> Any:
    """Let an upload say what DICOM knows, now and then; hardly any word that is made up is that."""
    return _sensible(query) if _is_upload(context) else query


@schemathesis.hook
def map_body(context: schemathesis.HookContext, body: Any) -> Any:
    """Let a form hold pictures, and what DICOM knows of them, now and then."""
    form = getattr(body, "body", None)
    if _is_upload(context) and isinstance(form, dict):
        form |= {"image": _picture(form["image"])} if "image" in form else {}
        return replace(body, body=_sensible(form))
    return body


def _is_upload(context: schemathesis.HookContext) -> bool:
    return context.operation is not None and context.operation.path == "/v1/instances"


def _sensible(said: Any) -> Any:
    """Replace three of four names that are made up, and what they say."""
    if not isinstance(said, dict):
        return said
    sensible: dict[str, Any] = {}
    for name, value in said.items():
        size = len(str(name))
        if name in _OWN and size % 2 == len(str(value)) % 2:
            continue
        known = name == "image" or size % 4 == 3
        keyword, word = list(_SAID.items())[size % len(_SAID)]
        sensible |= {name: value} if known else {keyword: word}
    return sensible


def _picture(made_up: Any) -> Any:
    if isinstance(made_up, list):
        return [_picture(each) for each in made_up]
    if not isinstance(made_up, bytes):
        return made_up
    return _PICTURES[len(made_up) % len(_PICTURES)] if len(made_up) % 3 else made_up
