"""Coded sequences that may be given by a name instead: ``AnatomicRegionSequence=forearm``."""

from typing import Final

from service.dicom.anatomy import SITES
from service.errors import BadAttribute

# What photographs an eye: PS3.16 CID 4202, as SNOMED CT codes.
DEVICES: Final = {
    "direct ophthalmoscope": "409900009",
    "external camera": "409903006",
    "fundus camera": "409898007",
    "indirect ophthalmoscope": "409901008",
    "ophthalmic endoscope": "409902001",
    "scanning laser ophthalmoscope": "392001008",
    "slit lamp biomicroscope": "397247004",
    "specular microscope": "409899004",
}
LISTS: Final = {"AnatomicRegionSequence": SITES, "AcquisitionDeviceTypeCodeSequence": DEVICES}


def item(keyword: str, text: str, where: str) -> dict[str, str]:
    """Return the coded item of a sequence given by a name or a SNOMED CT code of its list.

    Raises
    ------
    BadAttribute
        If the sequence has no list, or the list doesn't have the name.
    """
    codes = LISTS.get(keyword)
    if codes is None:
        raise BadAttribute("a sequence is a list of objects", where=where)
    name = " ".join(text.lower().replace("_", " ").replace("-", " ").split())
    name = {code: known for known, code in codes.items()}.get(name, name)
    if name not in codes:
        raise BadAttribute(
            "the value is none of the codes known by name",
            where=where,
            mend="`jpegstow codes` lists them; or send CodeValue, CodingSchemeDesignator and "
            "CodeMeaning of any other",
        )
    return {
        "CodeValue": codes[name],
        "CodingSchemeDesignator": "SCT",
        "CodeMeaning": name.capitalize(),
    }
