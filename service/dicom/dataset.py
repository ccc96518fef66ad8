"""From a codestream and what was said of it to a DICOM instance."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from pydicom import Dataset
from pydicom.tag import Tag

from service.dicom import consistency, exif_attributes, icc
from service.dicom.codestream import Codestream
from service.dicom.exif_attributes import Tags
from service.dicom.normalise import Normalised, compression_ratio
from service.dicom.template import Template
from service.dicom.uid import Identity
from service.errors import UnsupportedJpeg

# Classes of 8-bit samples, of an enumerated list of photometric interpretations without YBR_FULL:
# endoscopic, microscopic, photographic, ophthalmic, dermoscopic (PS3.3 C.8.12.1.1, C.8.17.2).
_VISIBLE_LIGHT_CLASSES: Final = frozenset(
    f"1.2.840.10008.5.1.4.1.1.77.1.{number}" for number in ("1", "2", "4", "5.1", "7")
)
# Ophthalmic photographs and multi-frame true color secondary captures, of one frame here.
_MULTI_FRAME_CLASSES: Final = frozenset(
    {consistency.OPHTHALMIC_8_BIT, "1.2.840.10008.5.1.4.1.1.7.4"}
)
_FRAME_TIME: Final = Tag("FrameTime")


@dataclass(frozen=True, slots=True)
class Instance:
    """A described instance: its data set without Pixel Data and group 0002, and its codestream."""

    dataset: Dataset
    codestream: Codestream
    transfer_syntax: str

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID (0008,0016)."""
        return str(self.dataset.SOPClassUID)

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID (0008,0018)."""
        return str(self.dataset.SOPInstanceUID)

    @property
    def study_instance_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return str(self.dataset.StudyInstanceUID)

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID (0020,000E)."""
        return str(self.dataset.SeriesInstanceUID)


def overlay(below: Dataset, above: Dataset) -> Dataset:
    """Return a new data set of both; where both have an attribute, that of `above`.

    The elements are shared: they are replaced, by another overlay, and never assigned to.
    ``Dataset(below)`` would share even their mapping.
    """
    both = Dataset()
    both.update(below)
    both.update(above)
    return both


def merge(template: Template, tags: Tags, attributes: Dataset) -> Dataset:
    """Return the template's attributes overridden by those of EXIF, and these by the caller's.

    Raises
    ------
    BadAttribute
        If the SOP class wants a value that nobody gave, or values contradict each other.
    """
    said = overlay(template.dataset, attributes)
    from_exif = exif_attributes.attributes(tags, said)
    merged = overlay(overlay(template.dataset, from_exif), attributes)
    consistency.check(merged, str(template.dataset.Modality))
    # Laterality is type 2C: required of a paired body part unless Image Laterality is sent
    # (PS3.3 C.7.3.1).
    if merged.get("ImageLaterality"):
        merged.pop("Laterality", None)
    return merged


def describe(normalised: Normalised, merged: Dataset, identity: Identity) -> Instance:
    """Describe a codestream.

    Parameters
    ----------
    merged
        Template and caller's attributes; what the image and its identity say is laid over it.

    Raises
    ------
    UnsupportedJpeg
        If the SOP class of the template can't hold such samples.
    """
    _check_class(str(merged.SOPClassUID), normalised)
    facts = _image_facts(normalised, merged)
    facts.SpecificCharacterSet = "ISO_IR 192"
    facts.StudyInstanceUID = identity.study_instance_uid
    facts.SeriesInstanceUID = identity.series_instance_uid
    facts.SOPInstanceUID = identity.sop_instance_uid
    for keyword in ("FrameOfReferenceUID", "SynchronizationFrameOfReferenceUID"):
        if keyword in merged and not merged.get(keyword):
            setattr(facts, keyword, identity.frame_of_reference_uid)
    dataset = overlay(merged, facts)
    transfer_syntax = normalised.encapsulation.transfer_syntax
    return Instance(dataset, normalised.codestream, transfer_syntax)


def _check_class(sop_class: str, normalised: Normalised) -> None:
    """Refuse samples and derivations that a visible light class doesn't allow."""
    said = normalised.encapsulation
    if sop_class not in _VISIBLE_LIGHT_CLASSES:
        return
    if said.bits_stored != 8 or said.photometric_interpretation == "YBR_FULL":
        raise UnsupportedJpeg(
            f"the SOP class of the template doesn't hold samples of {said.bits_stored} bits in "
            f"{said.photometric_interpretation}",
            reason="sop-class",
            mend="use the template secondary-capture-image",
        )
    if normalised.derivation and sop_class == consistency.OPHTHALMIC_8_BIT:
        # PS3.3 C.8.17.2.1.4 would want to know of what kind the derivation is, and from what.
        raise UnsupportedJpeg(
            "the picture would have to be encoded again, and a derived ophthalmic photograph has "
            "to name its source",
            reason="sop-class",
            mend="send it upright and baseline, or use another template",
        )


def _image_facts(normalised: Normalised, merged: Dataset) -> Dataset:
    """Return what the codestream says of itself, and how it came to be."""
    facts = _pixel_facts(normalised, merged)
    facts.update(_lossy_facts(normalised))
    facts.update(_colour_facts(normalised))
    sop_class = str(merged.SOPClassUID)
    if sop_class in _MULTI_FRAME_CLASSES:
        facts.NumberOfFrames = "1"
        facts.FrameIncrementPointer = _FRAME_TIME
        facts.FrameTime = "0"
    grey = normalised.encapsulation.photometric_interpretation == "MONOCHROME2"
    if sop_class == consistency.OPHTHALMIC_8_BIT and grey:
        facts.PresentationLUTShape = "IDENTITY"  # PS3.3 C.8.17.2
    if normalised.derivation:
        said = merged.get("DerivationDescription")
        facts.ImageType = ["DERIVED", *_several(merged.get("ImageType"))[1:]]
        facts.DerivationDescription = "; ".join(filter(None, [said, normalised.derivation]))[:1024]
    return facts


def _colour_facts(normalised: Normalised) -> Dataset:
    """Return the ICC Profile module (PS3.3 C.11.15)."""
    facts = Dataset()
    if normalised.icc_profile:
        facts.ICCProfile = normalised.icc_profile
        known = {icc.srgb(): "SRGB", icc.adobe_rgb(): "ADOBERGB"}  # PS3.3 C.11.15.1.2
        if normalised.icc_profile in known:
            facts.ColorSpace = known[normalised.icc_profile]
    return facts


def _several(value: object) -> list[str]:
    if value is None or isinstance(value, str):
        return [value or "ORIGINAL", "PRIMARY"]
    return [str(one) for one in value] if isinstance(value, Iterable) else []


def _pixel_facts(normalised: Normalised, merged: Dataset) -> Dataset:
    """Return the Image Pixel macro (PS3.3 C.7.6.3)."""
    said = normalised.encapsulation
    facts = Dataset()
    facts.SamplesPerPixel = said.samples_per_pixel
    facts.PhotometricInterpretation = said.photometric_interpretation
    if said.samples_per_pixel > 1:
        facts.PlanarConfiguration = 0
    facts.Rows = said.rows
    facts.Columns = said.columns
    facts.BitsAllocated = said.bits_allocated
    facts.BitsStored = said.bits_stored
    facts.HighBit = said.bits_stored - 1
    facts.PixelRepresentation = 0
    # Type 1C: required of pixels that aren't square where no spacing says so.
    if normalised.aspect_ratio and not merged.get("PixelSpacing"):
        facts.PixelAspectRatio = [str(part) for part in normalised.aspect_ratio]
    return facts


def _lossy_facts(normalised: Normalised) -> Dataset:
    """Return the lossy attributes, with a value for each compression (PS3.3 C.7.6.1.1.5)."""
    said = normalised.encapsulation
    facts = Dataset()
    facts.LossyImageCompression = "01" if said.lossy_method else "00"
    if said.lossy_method:
        ratios = [*filter(None, [normalised.original_ratio]), compression_ratio(normalised)]
        methods = [said.lossy_method] * len(ratios)
        facts.LossyImageCompressionRatio = ratios[0] if len(ratios) == 1 else ratios
        facts.LossyImageCompressionMethod = methods[0] if len(methods) == 1 else methods
    return facts
