"""The structure of a Native DICOM Model document: PS3.19 A.1.5, and its schema in A.1.6."""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree as ET

from pydicom.datadict import keyword_for_tag
from pydicom.valuerep import STANDARD_VR

NAMESPACE = "{http://dicom.nema.org/PS3.19/models/NativeDICOM}"
SPACE = "{http://www.w3.org/XML/1998/namespace}space"
GROUPS = ["Alphabetic", "Ideographic", "Phonetic"]
COMPONENTS = ["FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix"]
BINARY = {"OB", "OD", "OF", "OL", "OV", "OW", "UN"}


def breaches(document: bytes) -> list[str]:
    """Return what of a document isn't as the model has it, each with the tag where it is."""
    root = ET.fromstring(document)
    return list(_model(root))


def _model(root: ET.Element) -> Iterator[str]:
    if root.tag != f"{NAMESPACE}NativeDicomModel":
        yield f"the root is {root.tag}"
    if root.get(SPACE) != "preserve" or set(root.attrib) != {SPACE}:
        yield f"the root has {root.attrib}"
    yield from _attributes(root, "")


def _attributes(parent: ET.Element, where: str) -> Iterator[str]:
    keys = [(child.get("tag", ""), child.get("privateCreator", "")) for child in parent]
    standard = [tag for tag, creator in keys if not creator]
    if standard != sorted(standard) or len(set(keys)) < len(keys):
        yield f"{where}: tags out of order or twice"
    if (parent.text or "").strip():
        yield f"{where}: text between attributes"
    for child in parent:
        yield from _attribute(child, f"{where}/{child.get('tag')}")


def _attribute(element: ET.Element, where: str) -> Iterator[str]:
    if element.tag != f"{NAMESPACE}DicomAttribute":
        yield f"{where} is {element.tag}"
    yield from _names(element, where)
    kinds = {child.tag.removeprefix(NAMESPACE) for child in element}
    allowed = _content(element.get("vr", ""))
    if len(kinds) > 1 or not kinds <= allowed:
        yield f"{where} has {sorted(kinds)}, not one of {sorted(allowed)}"
    if kinds & {"Value", "Item", "PersonName"}:
        numbers = [child.get("number", "") for child in element]
        if numbers != sorted(set(numbers), key=int) or not all(map(_is_positive, numbers)):
            yield f"{where}: numbers {numbers}"
    elif len(element) > 1:
        yield f"{where} has {len(element)} of {kinds}"
    for child in element:
        yield from _value(child, where)


def _is_positive(number: str) -> bool:
    return re.fullmatch("[1-9][0-9]*", number) is not None


def _names(element: ET.Element, where: str) -> Iterator[str]:
    tag = element.get("tag", "")
    if set(element.attrib) - {"tag", "vr", "keyword", "privateCreator"}:
        yield f"{where} has {element.attrib}"
    if not re.fullmatch("[0-9A-F]{8}", tag):
        yield f"{where}: not a tag"
        return
    if element.get("vr") not in STANDARD_VR:
        yield f"{where}: VR {element.get('vr')}"
    if int(tag[3], 16) % 2:
        if not element.get("privateCreator") or tag[4:6] != "00":
            yield f"{where} is private, and doesn't say whose"
    elif element.get("keyword", "") != keyword_for_tag(int(tag, 16)):
        yield f"{where} is called {element.get('keyword')}"


def _content(vr: str) -> set[str]:
    if vr == "SQ":
        return {"Item"}
    if vr == "PN":
        return {"PersonName"}
    return {"BulkData", "InlineBinary"} if vr in BINARY else {"Value", "BulkData"}


def _value(element: ET.Element, where: str) -> Iterator[str]:
    kind = element.tag.removeprefix(NAMESPACE)
    if kind == "BulkData":
        if len(element) or element.text or set(element.attrib) not in ({"uri"}, {"uuid"}):
            yield f"{where}: bulk data with {element.attrib}"
    elif kind == "Item":
        yield from _attributes(element, f"{where}/{element.get('number')}")
    elif kind == "PersonName":
        yield from _in_order(element, GROUPS, where)
        for group in element:
            yield from _in_order(group, COMPONENTS, where)
            for component in group:
                yield from _in_order(component, [], where)
    else:
        yield from _in_order(element, [], where)


def _in_order(element: ET.Element, names: list[str], where: str) -> Iterator[str]:
    """Yield what is wrong if the children aren't some of the names, in their order."""
    found = [child.tag.removeprefix(NAMESPACE) for child in element]
    if found != [name for name in names if name in found]:
        yield f"{where}: {element.tag} holds {found}"


def content(document: bytes) -> dict[str, Any]:
    """Return what a document says, of any writer: by path, VR and values; bulk data by its place.

    Numbers are compared as numbers: 0.50 is 0.5.
    """
    return dict(_said(ET.fromstring(document), ""))


def _said(parent: ET.Element, where: str) -> Iterator[tuple[str, Any]]:
    for attribute in parent:
        tag, creator = attribute.get("tag", ""), attribute.get("privateCreator", "")
        if int(tag[3], 16) % 2 and not creator:
            continue  # a private creator, which dcmtk lists among the attributes
        vr, path = str(attribute.get("vr")), f"{where}{tag}{creator}"
        yield path, (vr, attribute.get("keyword"), *_texts(attribute, vr))
        for child in attribute:
            if child.tag.removeprefix(NAMESPACE) == "Item":
                yield from _said(child, f"{path}/{child.get('number')}/")


def _texts(attribute: ET.Element, vr: str) -> list[Any]:
    kinds = {child.tag.removeprefix(NAMESPACE) for child in attribute}
    if kinds == {"PersonName"}:
        return list(_names_said(attribute))
    if kinds == {"Value"}:
        pairs = [(child.get("number"), child.text or "") for child in attribute]
        numeric = vr in {"DS", "IS", "FL", "FD", "SL", "SS", "SV", "UL", "US", "UV"}
        return [(number, _number(text)) if numeric else (number, text) for number, text in pairs]
    return sorted(kinds)


def _names_said(attribute: ET.Element) -> Iterator[tuple[str, ...]]:
    """Yield the components of names; a writer may leave out groups that have none."""
    for person in attribute:
        for group in person:
            for part in group:
                where = person.get("number", ""), group.tag.removeprefix(NAMESPACE)
                yield (*where, part.tag.removeprefix(NAMESPACE), part.text or "")


def _number(text: str) -> str:
    """Return what is left of a number in single precision, which is that of FL."""
    return f"{float(text):.6g}"
