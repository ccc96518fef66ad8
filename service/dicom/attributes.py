"""What a caller says of a picture: DICOM keywords, the DICOM JSON model, or both in one object.

{"PatientID": "P-7",
 "PatientName": "Doe^Jane",
 "00080050": {"vr": "SH", "Value": ["A-1"]},
 "AnatomicRegionSequence": [{"CodeValue": "...", ...}]}
"""

import difflib
import re
from collections.abc import Mapping
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import (
    dictionary_has_tag,
    dictionary_keyword,
    dictionary_VM,
    dictionary_VR,
    keyword_dict,
)
from pydicom.tag import BaseTag

from service.dicom import coded, values
from service.dicom.json_model import BINARY
from service.errors import BadAttribute

MAX_DEPTH: Final = 8
MAX_VALUES: Final = 10_000
MAX_SAID: Final = 50_000  # values, items and attributes; an item of a few bytes takes 20 us

# Facts of the codestream (PS3.3 C.7.6.3, C.7.6.1.1.5, C.11.15): read from it, never said of it.
IMAGE_FACTS: Final = frozenset(
    {
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "Rows",
        "Columns",
        "BitsAllocated",
        "BitsStored",
        "HighBit",
        "PixelRepresentation",
        "PlanarConfiguration",
        "NumberOfFrames",
        "FrameIncrementPointer",
        "FrameTime",
        "PixelAspectRatio",
        "PaletteColorLookupTableUID",
        "SmallestImagePixelValue",
        "LargestImagePixelValue",
        "SmallestPixelValueInSeries",
        "LargestPixelValueInSeries",
        "PixelPaddingValue",
        "PixelPaddingRangeLimit",
        "PixelDataProviderURL",
        "RedPaletteColorLookupTableDescriptor",
        "GreenPaletteColorLookupTableDescriptor",
        "BluePaletteColorLookupTableDescriptor",
        "RedPaletteColorLookupTableData",
        "GreenPaletteColorLookupTableData",
        "BluePaletteColorLookupTableData",
        "ICCProfile",
        "ColorSpace",
        "LossyImageCompression",
        "LossyImageCompressionRatio",
        "LossyImageCompressionMethod",
        "PixelData",
        "FloatPixelData",
        "DoubleFloatPixelData",
        "ExtendedOffsetTable",
        "ExtendedOffsetTableLengths",
    }
)

# What the service decides: the character set of all it writes, and the name of the instance.
OWN: Final = frozenset(
    {
        "SpecificCharacterSet",
        "SOPInstanceUID",
        "InstanceCoercionDateTime",
        # These are of queries and answers, not of instances.
        "QueryRetrieveLevel",
        "RetrieveAETitle",
        "RetrieveURL",
        "InstanceAvailability",
        "AvailableTransferSyntaxUID",
        "ModalitiesInStudy",
        "NumberOfPatientRelatedStudies",
        "NumberOfPatientRelatedSeries",
        "NumberOfPatientRelatedInstances",
        "NumberOfStudyRelatedSeries",
        "NumberOfStudyRelatedInstances",
        "NumberOfSeriesRelatedInstances",
        "LengthToEnd",
    }
)

FORBIDDEN_TO_CALLERS: Final = IMAGE_FACTS | OWN | {"SOPClassUID"}
FORBIDDEN_TO_TEMPLATES: Final = IMAGE_FACTS | OWN | {"StudyInstanceUID", "SeriesInstanceUID"}
_FORBIDDEN_IN_ITEMS = frozenset({"SpecificCharacterSet"})

_WHY = {
    **dict.fromkeys(IMAGE_FACTS, "it is read from the JPEG and can't be set"),
    "SpecificCharacterSet": "it is always ISO_IR 192 (UTF-8)",
    "SOPInstanceUID": "the service names instances; an Idempotency-Key tells uploads apart",
    "SOPClassUID": "the template decides it; choose another template",
    "StudyInstanceUID": "a template can't hold the identity of one study",
    "SeriesInstanceUID": "a template can't hold the identity of one series",
}
_FORBIDDEN_GROUPS = (0x0000, 0x0002, 0x0004, 0x0006, 0x7FE0, 0xFFFA, 0xFFFC, 0xFFFE)


def parse(
    model: Mapping[str, Any], forbidden: frozenset[str] = FORBIDDEN_TO_CALLERS, path: str = ""
) -> Dataset:
    """Read attributes into a data set of checked values.

    Parameters
    ----------
    model
        From keyword or eight hexadecimal digits to a value, a list of values, a list of items
        (sequences), or None, "" and [] for an attribute without a value. The elements of the
        DICOM JSON model are ``{"vr": ..., "Value": [...]}`` (PS3.18 F.2.2).
    forbidden
        Keywords that are refused; in the items of sequences, only the character set.
    path
        Where the data set stands, for errors: ``AnatomicRegionSequence[1].``

    Raises
    ------
    BadAttribute
        For the first attribute that can't be taken; `where` names it.
    """
    if not path and count(model) > MAX_SAID:
        detail = f"there are more than {MAX_SAID} values in the attributes"
        raise BadAttribute(detail, reason="too-many-values", mend="leave some out")
    dataset = Dataset()
    for name, value in model.items():
        tag, keyword, vr = _look_up(name, path)
        where = path + keyword
        if keyword in forbidden:
            raise BadAttribute("the attribute is not the caller's", where=where, mend=_why(keyword))
        if tag in dataset:
            raise BadAttribute("the attribute is given twice", where=where)
        if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
            value = _from_model(value, vr, where)  # noqa: PLW2901 - the same value, unwrapped
        dataset.add_new(tag, vr, _checked(tag, value, where, vr))
    return dataset


def count(model: Any) -> int:
    """Return how many values, items and attributes there are in a model, at every depth."""
    number, pending = 0, [model]
    while pending:
        value = pending.pop()
        number += 1
        if isinstance(value, Mapping):
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return number


def _why(keyword: str) -> str:
    return _WHY.get(keyword, "leave it out")


def _look_up(name: str, path: str) -> tuple[BaseTag, str, str]:
    """Return tag, keyword and VR of a keyword or of eight hexadecimal digits."""
    if re.fullmatch(r"[0-9A-Fa-f]{8}", name):
        tag = BaseTag(int(name, 16))
    elif name and name in keyword_dict:  # some retired attributes have no keyword
        tag = BaseTag(keyword_dict[name])
    else:
        short = 0 < len(name) <= 64
        near = difflib.get_close_matches(name, keyword_dict, 1) if short else []
        mend = f"did you mean {near[0]}?" if near else "use a keyword of the DICOM data dictionary"
        shown = name if re.fullmatch(r"[A-Za-z0-9]{1,64}", name) else "the given name"
        raise BadAttribute(
            f"{shown} isn't a DICOM keyword",
            reason="unknown-keyword",
            where=path + shown,
            mend=mend,
        )
    known = dictionary_has_tag(tag) and dictionary_keyword(tag)
    if tag.group in _FORBIDDEN_GROUPS or tag.element == 0 or not known:
        raise BadAttribute(
            "the attribute isn't in the data dictionary, or isn't the caller's to set",
            reason="unknown-keyword",
            where=f"{path}{tag.group:04X}{tag.element:04X}",
            mend="use a standard attribute of the data set",
        )
    vr = dictionary_VR(tag)
    if vr in BINARY or len(vr) != 2:
        detail = f"attributes of VR {vr} can't be given"
        raise BadAttribute(detail, where=path + dictionary_keyword(tag), mend="leave it out")
    return tag, dictionary_keyword(tag), vr


def _from_model(element: Any, vr: str, where: str) -> Any:
    """Unwrap an element of the DICOM JSON model."""
    if not isinstance(element, Mapping):
        raise BadAttribute(
            "the element isn't an object", where=where, mend='write {"vr": ..., "Value": [...]}'
        )
    if element.get("vr", vr) != vr:
        raise BadAttribute(f"the vr isn't {vr}, which the data dictionary says", where=where)
    if not set(element) <= {"vr", "Value"}:
        raise BadAttribute("the element has more than vr and Value", where=where)
    content = element.get("Value", [])
    if not isinstance(content, list):
        raise BadAttribute("Value isn't a list", where=where)
    return content


def _checked(tag: BaseTag, value: Any, where: str, vr: str) -> Any:
    """Return what pydicom takes: None, a value, a list of values, or a list of data sets."""
    if value is None or value in ([], {}) or (isinstance(value, str) and not value.strip()):
        return [] if vr == "SQ" else None
    if vr == "SQ":
        return _items(value, where)
    several = value if isinstance(value, list) else [value]
    vm, keyword = dictionary_VM(tag), dictionary_keyword(tag)
    least, most = multiplicity(vm)
    if not least <= len(several) <= min(most, MAX_VALUES):
        detail = f"the attribute has {len(several)} values, its value multiplicity is {vm}"
        raise BadAttribute(detail, where=where)
    # PS3.18 F.2.5: null stands for an empty one of several values.
    checked = [
        "" if one in (None, "") and len(several) > 1 else values.check(keyword, vr, one, where)
        for one in several
    ]
    return checked[0] if len(checked) == 1 else checked


def _items(value: Any, where: str) -> list[Dataset]:
    if isinstance(value, str):
        value = coded.item(where.rpartition(".")[2], value, where)
    items = [value] if isinstance(value, Mapping) else value
    if not isinstance(items, list) or not all(isinstance(item, Mapping) for item in items):
        raise BadAttribute("a sequence is a list of objects", where=where)
    if where.count("[") >= MAX_DEPTH:
        raise BadAttribute(f"sequences are nested more than {MAX_DEPTH} deep", where=where)
    parsed = [parse(item, _FORBIDDEN_IN_ITEMS, f"{where}[{n}].") for n, item in enumerate(items, 1)]
    for n, item in enumerate(parsed, 1):
        _check_code(item, f"{where}[{n}]")
    return parsed


def _check_code(item: Dataset, where: str) -> None:
    """Refuse half a code: PS3.3 Table 8.8-1."""
    for keyword in ("CodingSchemeDesignator", "CodeMeaning"):
        if item.get("CodeValue") and not item.get(keyword):
            raise BadAttribute("a code has no " + keyword, where=f"{where}.{keyword}")


def multiplicity(vm: str) -> tuple[int, float]:
    """Return the least and the greatest number of values: ``1-n`` gives 1 and infinity."""
    least, _, most = vm.partition("-")
    if not most:
        return int(least), int(least)
    return int(least), float("inf") if "n" in most else int(most)
