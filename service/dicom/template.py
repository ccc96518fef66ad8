"""Templates: what is the same in every instance of one kind, as one dicom+json object a SOP class.

A template holds the SOP class, the modality, and every attribute of type 2 that the class wants,
empty where only the caller knows. It holds no identity and nothing that the JPEG tells.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from pydicom import Dataset
from pydicom.uid import UID

from service.dicom import attributes, json_model
from service.errors import BadAttribute, BadTemplate

# Type 2 in the patient, study, series and image modules of every image: PS3.3 C.7.1.1, C.7.2.1,
# C.7.3.1, C.7.6.1.
REQUIRED: Final = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
    "SeriesNumber",
    "InstanceNumber",
)
_REQUIRED_VALUES = ("SOPClassUID", "Modality")


@dataclass(frozen=True, slots=True)
class Template:
    """A checked template; `digest` is the SHA-256 of its content."""

    name: str
    dataset: Dataset
    digest: str

    @property
    def sop_class(self) -> UID:
        """The SOP class of the instances that it makes."""
        return UID(self.dataset.SOPClassUID)


def parse(name: str, text: bytes) -> Template:
    """Read a template: a DICOM JSON object, or an array of one, in UTF-8.

    Raises
    ------
    BadTemplate
        If it isn't one; `where` names the template and the attribute.
    """
    model = _model(name, text)
    try:
        dataset = attributes.parse(model, attributes.FORBIDDEN_TO_TEMPLATES)
    except BadAttribute as error:
        where = f"template {name}, {error.where}"
        raise BadTemplate(error.detail, where=where, mend=error.mend) from error
    missing = [keyword for keyword in REQUIRED if keyword not in dataset]
    missing += [keyword for keyword in _REQUIRED_VALUES if not dataset.get(keyword)]
    if missing:
        raise BadTemplate(
            f"the template lacks {', '.join(missing)}",
            where=f"template {name}",
            mend="add them, empty where only the caller knows the value",
        )
    if UID(dataset.SOPClassUID).type != "SOP Class":
        raise BadTemplate("SOPClassUID names no SOP class", where=f"template {name}, SOPClassUID")
    canonical = json_model.dumps(json_model.to_json(dataset))
    return Template(name, dataset, hashlib.sha256(canonical).hexdigest())


def _model(name: str, text: bytes) -> dict[str, Any]:
    try:
        model = json.loads(text)
    except ValueError as error:
        where = f"template {name}"
        raise BadTemplate("the template isn't JSON in UTF-8", where=where) from error
    if isinstance(model, list) and len(model) == 1:
        model = model[0]
    if not isinstance(model, dict):
        raise BadTemplate("the template isn't a DICOM JSON object", where=f"template {name}")
    # An editor that checks JSON by schema wants a place for it; it says nothing of the instance.
    model.pop("$schema", None)
    return model
