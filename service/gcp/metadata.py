"""What is said of a picture in a bucket: by its name, its custom metadata, and a sidecar beside it.

METADATA_RULES    {PatientID}/{AccessionNumber}/{name}.jpg    lowest
custom metadata   x-goog-meta-patientid: P-7
sidecar           photo.json beside photo.jpg                 highest

A rule is the pattern of a whole name. A part in braces is one attribute where it is a DICOM
keyword, the template where it is ``{template}``, and anything at all where it is another name in
small letters. It takes at least one character, as few as it can, and never a slash. ``**`` between
slashes stands for any number of folders, also none, and at the end for anything below. All else
is literal, percent signs too: what an object is called is what is matched.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from typing import Any, Final
from urllib.parse import unquote

from pydicom.datadict import keyword_dict

from service.dicom import attributes, json_model
from service.errors import BadAttribute, BadRequest

_TEMPLATE: Final = "template"
_SMALL: Final = re.compile(r"[a-z][a-z0-9_]*")
_BRACES: Final = re.compile(r"\{([^{}]*)\}")
_KEYWORDS: Final = {keyword.lower(): keyword for keyword in keyword_dict if keyword}


@dataclass(frozen=True, slots=True)
class Rule:
    """A pattern of objects' names, as it was written and as an expression whose groups are said."""

    text: str
    expression: re.Pattern[str]


def rules(text: str) -> tuple[Rule, ...]:
    """Read METADATA_RULES, patterns that are separated by blanks or newlines.

    Raises
    ------
    ValueError
        Naming the rule, what is wrong with it, and how to mend it.
    """
    return tuple(_rule(pattern) for pattern in text.split())


def by_name(rules: Sequence[Rule], name: str) -> dict[str, str]:
    """Return what the first rule that matches makes of a name; nothing if none does."""
    for rule in rules:
        if found := rule.expression.fullmatch(name):
            return found.groupdict()
    return {}


def custom(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the custom metadata that are attributes, and the template; others are ignored.

    Names count in any case, since HTTP headers have none. Values of other than ASCII characters
    may be encoded words (RFC 2047), as S3 sends them, or percent-encoded UTF-8, as gsutil writes
    them; raw ones can't be read from gs:// at all.
    """
    known = {_keyword(name): value for name, value in metadata.items()}
    return {name: _decoded(value) for name, value in known.items() if name}


def sidecar(text: bytes) -> dict[str, Any]:
    """Read a sidecar: the object that `metadata` of an upload is, and perhaps its template.

    Raises
    ------
    BadRequest
        If it isn't such an object.
    """
    try:
        said = json_model.loads(text)
    except ValueError as error:
        detail = error.msg if isinstance(error, json.JSONDecodeError) else "not strict UTF-8 JSON"
        where = f"sidecar, character {error.pos}" if hasattr(error, "pos") else "sidecar"
        raise _bad_sidecar(f"the sidecar can't be read: {detail}", where) from None
    if not isinstance(said, dict):
        raise _bad_sidecar("the sidecar isn't a JSON object", "sidecar")
    if not isinstance(said.get(_TEMPLATE, ""), str):
        raise _bad_sidecar("the template isn't text", "sidecar, template")
    return said


def joined(
    named: Mapping[str, str], custom: Mapping[str, str], sidecar: Mapping[str, Any]
) -> tuple[dict[str, Any], str]:
    """Return the attributes that are said, the later sources winning, and the template's name.

    Parameters
    ----------
    named, custom, sidecar
        What `by_name`, `custom` and `sidecar` returned, or nothing.

    Returns
    -------
    For `service.dicom.attributes.parse`, unchecked; and "" where no template is named.
    """
    said: dict[str, Any] = {}
    for source in (named, custom, sidecar):
        tags = {_tag(name) for name in source}
        said = {name: value for name, value in said.items() if _tag(name) not in tags}
        said.update(source)
    return said, said.pop(_TEMPLATE, "")


def sidecar_name(name: str) -> str:
    """Return the name of the sidecar: ``a/photo.json`` beside ``a/photo.jpg``."""
    folder, slash, last = name.rpartition("/")
    stem, dot, _ = last.rpartition(".")
    return f"{folder}{slash}{stem if dot else last}.json"


def is_sidecar(name: str) -> bool:
    """Tell whether an object can only be a sidecar, and so no picture."""
    return name.lower().endswith(".json")


def _rule(pattern: str) -> Rule:
    try:
        return Rule(pattern, re.compile("".join(_folders(pattern))))
    except BadAttribute as error:
        raise ValueError(f"the rule {pattern}: {error}") from error
    except ValueError as error:
        raise ValueError(f"the rule {pattern}: {error}") from None


def _folders(pattern: str) -> Iterator[str]:
    """Translate a pattern folder by folder.

    Raises
    ------
    ValueError
        If a brace has no partner, an attribute is there twice, or parts can't be told apart.
    """
    folders = pattern.split("/")
    if folders.count("**") > 1:
        raise ValueError("it has ** more than once")
    names = _BRACES.findall(pattern)
    for name in names:
        if _is_said(name) and names.count(name) > 1:
            raise ValueError(f"it has {{{name}}} more than once")
    for place, folder in enumerate(folders, 1):
        last = place == len(folders)
        if folder == "**":
            yield "(?s:.+)" if last else "(?:[^/]+/)*?"
        else:
            yield _folder(folder) + ("" if last else "/")


def _folder(folder: str) -> str:
    """Translate what stands between two slashes, so that nothing is ever tried twice.

    Each part is atomic together with the literal behind it: it ends where that literal comes
    first, or at the folder's end. Plain expressions would try every way to divide a long name.
    """
    literal, *pieces = _BRACES.split(folder)
    if any(set("{}") & set(piece) for piece in (literal, *pieces)):
        raise ValueError("it has a brace without a partner")
    parts = list(zip(pieces[::2], pieces[1::2], strict=True))
    if any(not behind for _, behind in parts[:-1]):
        raise ValueError("two parts have nothing between them; put a character there")
    ends = [""] * (len(parts) - 1) + ["(?=/|\\Z)"]
    translated = [
        f"(?>{_part(name)}{re.escape(behind)}{end})"
        for (name, behind), end in zip(parts, ends, strict=False)
    ]
    return re.escape(literal) + "".join(translated)


def _part(name: str) -> str:
    if not _is_said(name):
        return "[^/]+?"
    if name != _TEMPLATE:
        attributes.parse({name: None})
    return f"(?P<{name}>[^/]+?)"


def _is_said(name: str) -> bool:
    return name == _TEMPLATE or not _SMALL.fullmatch(name)


def _keyword(name: str) -> str:
    return _TEMPLATE if name.lower() == _TEMPLATE else _KEYWORDS.get(name.lower(), "")


def _tag(name: str) -> int | str:
    """Return what tells attributes apart: a sidecar may write PatientID as 00100020."""
    return int(name, 16) if re.fullmatch("[0-9A-Fa-f]{8}", name) else keyword_dict.get(name, name)


def _decoded(value: str) -> str:
    if "=?" not in value:
        return _unquoted(value)
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value


def _unquoted(value: str) -> str:
    """Undo percent-encoding where it hides other than ASCII characters; ``50%25`` may mean that."""
    try:
        plain = unquote(value, errors="strict")
    except ValueError:
        return value
    return value if plain.isascii() or not value.isascii() else plain


def _bad_sidecar(detail: str, where: str) -> BadRequest:
    mend = 'write an object such as {"PatientID": "P-7"} before the picture is written'
    return BadRequest(detail, reason="metadata", where=where, mend=mend)
