"""The Native DICOM Model (PS3.19 Annex A) from the DICOM JSON model."""

import re
from typing import Any
from xml.etree.ElementTree import Element, SubElement, tostring

from pydicom.datadict import keyword_for_tag

from service.dicom.json_model import JsonObject

_NAMESPACE = "http://dicom.nema.org/PS3.19/models/NativeDICOM"
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# PS3.19 Table A.1.5-2: the components of a person's name, in the order of PS3.5 6.2.1.
_NAME = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")

# Private attributes that this service or Google's writes: what PS3.6 is for all others.
_PRIVATE_KEYWORDS = {("GOOGLE", "97"): "FailureDetail"}


def to_xml(model: JsonObject) -> bytes:
    """Write a DICOM JSON object as a NativeDicomModel document in UTF-8."""
    root = Element("NativeDicomModel", {"xmlns": _NAMESPACE, "xml:space": "preserve"})
    _add_attributes(root, model)
    document: bytes = tostring(root, encoding="utf-8", xml_declaration=True)
    # A reader takes a bare CR, which ElementTree writes, for the end of a line: XML 1.0 2.11.
    return document.replace(b"\r", b"&#13;")


def _add_attributes(parent: Element, model: JsonObject) -> None:
    for tag in sorted(model):
        if not _is_private_creator(tag):
            attribute = SubElement(parent, "DicomAttribute", _names(tag, model))
            _add_values(attribute, model[tag])


def _is_private_creator(tag: str) -> bool:
    return int(tag[3], 16) % 2 == 1 and tag[4:6] == "00" and tag[6:] >= "10"


def _names(tag: str, model: JsonObject) -> dict[str, str]:
    """Return the XML attributes that name a DICOM attribute.

    A private one is named by its creator instead of its block: (0009,1097) of the block that
    (0009,0010) reserves for GOOGLE is 00090097 of GOOGLE.
    """
    names = {"tag": tag, "vr": model[tag]["vr"]}
    creator = model.get(f"{tag[:4]}00{tag[4:6]}", {}).get("Value", [""])[0]
    if int(tag[3], 16) % 2 == 1 and creator and isinstance(creator, str):
        names["tag"] = f"{tag[:4]}00{tag[6:]}"
        keyword = _PRIVATE_KEYWORDS.get((creator, tag[6:]), "")
        names["privateCreator"] = _text(creator)
    else:
        keyword = keyword_for_tag(int(tag, 16))
    return names | ({"keyword": keyword} if keyword else {})


def _add_values(attribute: Element, element: JsonObject) -> None:
    if uri := element.get("BulkDataURI"):
        SubElement(attribute, "BulkData", {"uri": uri})
    for number, value in enumerate(element.get("Value", []), 1):
        numbered = {"number": str(number)}
        if element["vr"] == "SQ":
            _add_attributes(SubElement(attribute, "Item", numbered), value)
        elif element["vr"] == "PN":
            _add_name(SubElement(attribute, "PersonName", numbered), value or {})
        else:
            text = "" if value is None else _text(value)
            SubElement(attribute, "Value", numbered).text = text


def _add_name(person: Element, groups: dict[str, str]) -> None:
    for group in ("Alphabetic", "Ideographic", "Phonetic"):
        if groups.get(group):
            parent = SubElement(person, group)
            for name, component in zip(_NAME, groups[group].split("^"), strict=False):
                if component:
                    SubElement(parent, name).text = _text(component)


def _text(value: Any) -> str:
    """Return a value without the characters that XML 1.0 can't hold."""
    return _NOT_XML.sub("", str(value))
