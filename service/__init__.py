"""jpegstow: JPEG photographs in, DICOM instances in a DICOMweb store out."""

__version__ = "0.1.0"
