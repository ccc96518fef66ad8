"""DICOMweb over the embedded archive, in the manner of a Google Cloud Healthcare DICOM store."""

from service.dicomweb.app import create_app

__all__ = ["create_app"]
