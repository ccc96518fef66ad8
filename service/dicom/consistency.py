"""What attributes must not say together, or beside a SOP class: where PS3.3 leaves no choice."""

from typing import Final

from pydicom import Dataset

from service.errors import BadAttribute

SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"
OPHTHALMIC_8_BIT: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
DERMOSCOPIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"
FUNDUS_CAMERA: Final = "409898007"

# Type 1 attributes that only the caller, or the camera through EXIF, can know.
WANTED: Final = {
    # PS3.3 C.8.17.2, C.8.17.4, C.8.17.5
    OPHTHALMIC_8_BIT: (
        "ImageLaterality",
        "AnatomicRegionSequence",
        "AcquisitionDeviceTypeCodeSequence",
        "ContentDate",
        "ContentTime",
        "AcquisitionDateTime",
    ),
    # Enhanced General Equipment, PS3.3 C.7.5.2
    DERMOSCOPIC: (
        "Manufacturer",
        "ManufacturerModelName",
        "DeviceSerialNumber",
        "SoftwareVersions",
    ),
}


def check(merged: Dataset, modality: str) -> None:
    """Check template, EXIF and caller's attributes together.

    Parameters
    ----------
    modality
        The template's, which only a secondary capture may depart from.

    Raises
    ------
    BadAttribute
        Naming the first attribute that contradicts another or the SOP class, or is missing.
    """
    sop_class = str(merged.SOPClassUID)
    _check_image_type(merged)
    if sop_class != SECONDARY_CAPTURE and merged.get("Modality") != modality:
        raise _bad("Modality", f"the SOP class has the modality {modality}")
    laterality, image_laterality = merged.get("Laterality"), merged.get("ImageLaterality")
    if laterality and image_laterality and laterality != image_laterality:
        raise _bad("Laterality", "Laterality contradicts ImageLaterality", "send one of them")
    wanted = [*WANTED.get(sop_class, ()), *_conditional(merged, sop_class)]
    missing = [keyword for keyword in wanted if not merged.get(keyword)]
    if missing:
        detail = f"the SOP class wants {', '.join(missing)}"
        raise BadAttribute(
            detail, reason="missing-attribute", where=missing[0], mend="send them with the picture"
        )


def _check_image_type(merged: Dataset) -> None:
    """Hold Image Type's first two values to their enumerations (PS3.3 C.7.6.1.1.2)."""
    given = merged.get("ImageType") or ["ORIGINAL", "PRIMARY"]
    first, second = (*([given] if isinstance(given, str) else given), "", "")[:2]
    if first not in {"ORIGINAL", "DERIVED"} or second not in {"PRIMARY", "SECONDARY"}:
        detail = "the first value isn't ORIGINAL or DERIVED, or the second PRIMARY or SECONDARY"
        raise _bad("ImageType", detail)


def _conditional(merged: Dataset, sop_class: str) -> list[str]:
    """Return the attributes that a value of another one makes type 1."""
    if sop_class == OPHTHALMIC_8_BIT:
        if merged.get("ImageLaterality") == "U":
            raise _bad("ImageLaterality", "an eye's laterality is R, L or B")
        devices = merged.get("AcquisitionDeviceTypeCodeSequence") or []
        # PS3.3 Table C.8.17.2-1
        return ["PixelSpacing"] if any(d.get("CodeValue") == FUNDUS_CAMERA for d in devices) else []
    # PS3.3 C.8.12.13
    touches = sop_class == DERMOSCOPIC and merged.get("ContactMethod") == "CONTACT"
    return ["ImmersionMedia"] if touches else []


def _bad(where: str, detail: str, mend: str = "") -> BadAttribute:
    return BadAttribute(detail, reason="contradiction", where=where, mend=mend)
