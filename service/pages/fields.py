"""The fields of the upload page that a template's SOP class has of its own."""

from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from service.dicom.anatomy import SITES
from service.dicom.coded import DEVICES
from service.dicom.template import Template

Kind = Literal["text", "number", "moment", "choice"]

_OPHTHALMIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.5.1"
_DERMOSCOPIC: Final = "1.2.840.10008.5.1.4.1.1.77.1.7"


class Field(NamedTuple):
    """A field of the form.

    Attributes
    ----------
    keyword
        Of the attribute; its label stands under it in the catalogue of texts.
    choices
        From value to the key of its text.
    """

    keyword: str
    kind: Kind = "text"
    choices: Mapping[str, str] | None = None
    required: bool = False


_SITES: Final = {name: f"code.{name}" for name in SITES}
_DEVICES: Final = {name: f"code.{name}" for name in DEVICES}
_SITE: Final = Field("AnatomicRegionSequence", "choice", _SITES)
_SIDES: Final = {"R": "side.R", "L": "side.L"}
_PAIRED: Final = (_SITE, Field("Laterality", "choice", _SIDES))
_EYE: Final = (
    Field("ImageLaterality", "choice", _SIDES | {"B": "side.B"}, required=True),
    Field("AcquisitionDeviceTypeCodeSequence", "choice", _DEVICES, required=True),
    Field("PixelSpacing", "number"),
    Field("AcquisitionDateTime", "moment"),
)
_CAMERA: Final = (
    Field("Manufacturer"),
    Field("ManufacturerModelName"),
    Field("DeviceSerialNumber"),
    Field("SoftwareVersions"),
)


def own_fields(template: Template) -> tuple[Field, ...]:
    """Return what the upload page asks for a template, beside patient and study."""
    if template.dataset.Modality == "DOC":
        return ()
    by_class = {_OPHTHALMIC: _EYE, _DERMOSCOPIC: _PAIRED + _CAMERA}
    return by_class.get(template.sop_class, _PAIRED)
