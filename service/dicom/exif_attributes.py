"""What EXIF says of camera and exposure, as DICOM attributes (PS3.17 Annex NNNN).

Never the place (GPS), the owner, the artist, a maker's note or a comment: they are the patient's or
the photographer's, and all of them are among what the Basic Profile removes (PS3.15 Annex E).
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from pydicom import Dataset
from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword

from service.dicom import values
from service.dicom.attributes import multiplicity
from service.dicom.exif import IMAGE, INTEROPERABILITY, PHOTO, Number, Rational, Value
from service.errors import BadAttribute

Tags = Mapping[tuple[int, int], Value]

# General Equipment (PS3.3 C.7.5.1) is part of every image.
_EQUIPMENT: Final = {
    (IMAGE, 0x010F): "Manufacturer",
    (IMAGE, 0x0110): "ManufacturerModelName",
    (IMAGE, 0x0131): "SoftwareVersions",
    (PHOTO, 0xA431): "DeviceSerialNumber",
}

# The VL Photographic Equipment and Acquisition modules (PS3.3 C.8.12.9, C.8.12.10); the numbers
# of the coded ones are EXIF's own.
_PHOTOGRAPHIC: Final = {
    (PHOTO, 0x829A): "ExposureTimeInSeconds",
    (PHOTO, 0x829D): "FNumber",
    (PHOTO, 0x8822): "ExposureProgram",
    (PHOTO, 0x8827): "PhotographicSensitivity",
    (PHOTO, 0x9201): "ShutterSpeedValue",
    (PHOTO, 0x9202): "ApertureValue",
    (PHOTO, 0x9203): "BrightnessValue",
    (PHOTO, 0x9204): "ExposureBiasValue",
    (PHOTO, 0x9205): "MaxApertureValue",
    (PHOTO, 0x9206): "SubjectDistance",
    (PHOTO, 0x9207): "MeteringMode",
    (PHOTO, 0x9208): "LightSource",
    (PHOTO, 0x920A): "FocalLength",
    (PHOTO, 0xA401): "CustomRendered",
    (PHOTO, 0xA402): "ExposureMode",
    (PHOTO, 0xA403): "WhiteBalance",
    (PHOTO, 0xA404): "DigitalZoomRatio",
    (PHOTO, 0xA405): "FocalLengthIn35mmFilm",
    (PHOTO, 0xA406): "SceneCaptureType",
    (PHOTO, 0xA407): "GainControl",
    (PHOTO, 0xA408): "Contrast",
    (PHOTO, 0xA409): "Saturation",
    (PHOTO, 0xA40A): "Sharpness",
    (PHOTO, 0xA40C): "SubjectDistanceRange",
    (PHOTO, 0xA432): "LensSpecification",
    (PHOTO, 0xA433): "LensMake",
    (PHOTO, 0xA434): "LensModel",
    (PHOTO, 0xA435): "LensSerialNumber",
}
_PHOTOGRAPHIC_CLASSES: Final = frozenset(
    {"1.2.840.10008.5.1.4.1.1.77.1.4", "1.2.840.10008.5.1.4.1.1.77.1.7"}
)

# The numbers that the coded ones may have; makers write others of their own.
_CODES: Final = {
    "ExposureProgram": range(9),
    "MeteringMode": {*range(7), 255},
    "LightSource": {*range(5), *range(9, 16), *range(17, 25), 255},
    "CustomRendered": range(2),
    "ExposureMode": range(3),
    "WhiteBalance": range(2),
    "SceneCaptureType": range(4),
    "GainControl": range(5),
    "Contrast": range(3),
    "Saturation": range(3),
    "Sharpness": range(3),
    "SubjectDistanceRange": range(4),
}

_EXIF_VERSION = (PHOTO, 0x9000)
_FLASH = (PHOTO, 0x9209)
_COLOR_SPACE = (PHOTO, 0xA001)
_INDEX = (INTEROPERABILITY, 0x0001)
# The first moment that is there: original, digitized; with its sub-seconds and its offset.
_MOMENTS = ((0x9003, 0x9291, 0x9011), (0x9004, 0x9292, 0x9012))
_USED: Final = frozenset(
    {*_EQUIPMENT, *_PHOTOGRAPHIC, _EXIF_VERSION, _FLASH}
    | {(PHOTO, tag) for moment in _MOMENTS for tag in moment}
)
# -00:00 means that the zone is unknown, and PS3.5 6.2 forbids it in DT.
_ZONE = re.compile(r"(?!-00:00)(\+(0\d|1[0-4])|-(0\d|1[0-2])):[0-5]\d", re.ASCII)
_UNKNOWN: Final = {
    "SubjectDistance": (0, 0xFFFFFFFF),
    "FocalLengthIn35mmFilm": (0,),
    "BrightnessValue": (0xFFFFFFFF, -1),
}
_MOMENT: Final = (
    "AcquisitionDate",
    "AcquisitionTime",
    "ContentDate",
    "ContentTime",
    "AcquisitionDateTime",
)
# Removed by the Basic Profile, with all dates: PS3.15 Table E.1-1.
_IDENTIFYING: Final = frozenset({"DeviceSerialNumber", "LensSerialNumber"})


def attributes(tags: Tags, said: Dataset) -> Dataset:
    """Return the attributes that EXIF gives an instance.

    A value that its VR forbids is left out: cameras write what they like.

    Parameters
    ----------
    said
        What template and caller say. EXIF doesn't add half a moment or half a camera to theirs:
        if they give any of the dates and times, or the manufacturer or the model, it gives none.
    """
    sop_class = str(said.get("SOPClassUID", ""))
    anonymous = said.get("PatientIdentityRemoved") == "YES"
    dataset = Dataset()
    another_camera = said.get("Manufacturer") or said.get("ManufacturerModelName")
    mapping = {} if another_camera else dict(_EQUIPMENT)
    mapping |= _PHOTOGRAPHIC if sop_class in _PHOTOGRAPHIC_CLASSES else {}
    for tag, keyword in mapping.items():
        if tag in tags and not (anonymous and keyword in _IDENTIFYING):
            _set(dataset, keyword, _values(tags[tag], keyword))
    if sop_class in _PHOTOGRAPHIC_CLASSES:
        _set_version_and_flash(dataset, tags)
    if not anonymous and not any(said.get(keyword) for keyword in _MOMENT):
        dataset.update(_first_moment(tags, zoned=bool(said.get("TimezoneOffsetFromUTC"))))
    return dataset


def used(tags: Tags) -> Tags:
    """Return only the tags that can become attributes: none that names a person or a place."""
    return {key: value for key, value in tags.items() if key in _USED}


def says_srgb(tags: Tags) -> bool:
    """Tell whether the colour space is declared to be sRGB."""
    return tags.get(_COLOR_SPACE) == (1,)


def says_adobe_rgb(tags: Tags) -> bool:
    """Tell whether the colour space is declared to be Adobe RGB.

    EXIF has no number for it. A camera says "uncalibrated", and by the Interoperability Index that
    the file is a DCF optional one (CIPA DC-009), whose colours are those of Adobe RGB.
    """
    return tags.get(_COLOR_SPACE) == (0xFFFF,) and tags.get(_INDEX) == "R03"


def _set(dataset: Dataset, keyword: str, several: list[Any]) -> None:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    least, most = multiplicity(dictionary_VM(tag))
    if not least <= len(several) <= most:
        return
    vr = dictionary_VR(tag)
    try:
        checked = [values.check(keyword, vr, value, keyword) for value in several]
    except BadAttribute:
        return
    if checked and "" not in checked:
        dataset.add_new(tag, vr, checked[0] if len(checked) == 1 else checked)


def _values(value: Value, keyword: str) -> list[Any]:
    """Return text without what DICOM can't hold, and numbers without the undefined."""
    if isinstance(value, bytes):
        return []
    if isinstance(value, str):
        return [re.sub(r"[\x00-\x1f\x7f-\x9f\\]+", " ", value).strip("\0 ")[:64]]
    if _is_unknown(keyword, value[0]):
        return []
    if keyword == "PhotographicSensitivity":
        value = value[:1]
    if any(isinstance(number, tuple) and number[1] == 0 for number in value):
        return []
    if value[0] not in _CODES.get(keyword, value):
        return []
    return [n[0] / n[1] if isinstance(n, tuple) else n for n in value]


def _is_unknown(keyword: str, number: Number | Rational) -> bool:
    """Tell whether EXIF says by a number of its own that a value is unknown or infinite."""
    numerator = number[0] if isinstance(number, tuple) else number
    return numerator in _UNKNOWN.get(keyword, ())


def _set_version_and_flash(dataset: Dataset, tags: Tags) -> None:
    version = tags.get(_EXIF_VERSION)
    if isinstance(version, bytes) and re.fullmatch(rb"\d{4}", version):
        dataset.EXIFVersion = version.decode("ascii")
    match tags.get(_FLASH):
        case (int(flash),):
            # bit 0 fired, 1-2 return light, 3-4 mode, 6 red-eye; bit 5 says "no flash" where
            # (0016,0014) asks for "flash present", and is left out
            dataset.FlashFiringStatus = flash & 1
            if flash >> 1 & 3 != 1:  # reserved
                dataset.FlashReturnStatus = flash >> 1 & 3
            dataset.FlashMode = flash >> 3 & 3
            dataset.FlashRedEyeMode = flash >> 6 & 1


def _first_moment(tags: Tags, *, zoned: bool) -> Dataset:
    """Return when the picture was taken; the offset stands in the DT only.

    Timezone Offset From UTC (0008,0201) would govern the study's times as well, and where the
    caller gives it (`zoned`), it would govern the camera's, of which only the DT says its own
    (PS3.3 C.12.1.1.8).
    """
    for moment in _MOMENTS:
        said = _moment(*(_text(tags, tag) for tag in moment))
        if said and not zoned:
            return said
        if said and re.search(r"[+-]\d{4}$", said.AcquisitionDateTime):
            only = Dataset()
            only.AcquisitionDateTime = said.AcquisitionDateTime
            return only
    return Dataset()


def _moment(moment: str, fraction: str, offset: str) -> Dataset:
    """Return the dates and times of a moment; none of them where it is no day or no time."""
    said = Dataset()
    found = re.fullmatch(r"(\d{4})[:-](\d\d)[:-](\d\d)[ T](\d\d):(\d\d):(\d\d)", moment)
    if not found:
        return said
    date, time = "".join(found.group(1, 2, 3)), "".join(found.group(4, 5, 6))
    time += f".{fraction}" if re.fullmatch(r"\d{1,6}", fraction) else ""
    zone = offset.replace(":", "") if _ZONE.fullmatch(offset) else ""
    for keyword, value in zip(_MOMENT, (date, time, date, time, date + time + zone), strict=True):
        _set(said, keyword, [value])
    return said if len(said) == len(_MOMENT) else Dataset()


def _text(tags: Tags, tag: int) -> str:
    value = tags.get((PHOTO, tag), "")
    return value.strip("\0 ") if isinstance(value, str) else ""
