"""From a codestream and what was said of it to a DICOM instance."""

from dataclasses import dataclass
from typing import Final

from pydicom import Dataset

from service.dicom.codestream import Codestream
from service.dicom.encapsulation import Encapsulation
from service.dicom.normalise import Normalised
from service.dicom.template import Template
from service.dicom.uid import Identity
from service.dicom.values import decimal_string
from service.errors import UnsupportedJpeg

# Visible light classes allow 8-bit samples only (PS3.3 C.8.12.1.1, C.8.17.2).
_EIGHT_BIT_CLASSES: Final = "1.2.840.10008.5.1.4.1.1.77.1."


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

    ``Dataset(below)`` would share its elements' mapping, and change with the new one.
    """
    both = Dataset()
    both.update(below)
    both.update(above)
    return both


def merge(template: Template, attributes: Dataset) -> Dataset:
    """Return the template's attributes overridden by the caller's."""
    merged = overlay(template.dataset, attributes)
    # Laterality is type 2C: required of a paired body part unless Image Laterality is sent, and
    # empty only where it is unknown (PS3.3 C.7.3.1).
    if merged.get("ImageLaterality") and not merged.get("Laterality"):
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
    _check_class(str(merged.SOPClassUID), normalised.encapsulation)
    dataset = overlay(merged, _image_facts(normalised))
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID = identity.study_instance_uid
    dataset.SeriesInstanceUID = identity.series_instance_uid
    dataset.SOPInstanceUID = identity.sop_instance_uid
    transfer_syntax = normalised.encapsulation.transfer_syntax
    return Instance(dataset, normalised.codestream, transfer_syntax)


def _check_class(sop_class: str, encapsulation: Encapsulation) -> None:
    if encapsulation.bits_stored != 8 and sop_class.startswith(_EIGHT_BIT_CLASSES):
        raise UnsupportedJpeg(
            f"the SOP class of the template holds 8-bit samples, these have "
            f"{encapsulation.bits_stored} bits",
            reason="bits",
            mend="use the template secondary-capture-image",
        )


def _image_facts(normalised: Normalised) -> Dataset:
    """Return the Image Pixel macro (PS3.3 C.7.6.3) and the lossy attributes (C.7.6.1.1.5)."""
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
    facts.LossyImageCompression = "01" if said.lossy_method else "00"
    if said.lossy_method:
        facts.LossyImageCompressionRatio = compression_ratio(said, len(normalised.codestream))
        facts.LossyImageCompressionMethod = said.lossy_method
    return facts


def compression_ratio(said: Encapsulation, compressed: int) -> str:
    """Return uncompressed to compressed size as DS, with two decimals (PS3.3 C.7.6.1.1.5.2)."""
    size = said.rows * said.columns * said.samples_per_pixel * said.bits_allocated // 8
    return decimal_string(round(size / compressed, 2))
