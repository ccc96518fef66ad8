"""The bytes that leave the house: `python -m tests.test_golden` writes them anew, review reads on.

A change here changes every instance, and with it what a store takes for a duplicate.
"""

from pathlib import Path

import pytest

from service.dicom import consistency, json_model
from service.dicom.attributes import parse
from service.dicom.dataset import Instance
from service.dicom.stow import package
from service.dicom.template import parse as parse_template
from service.dicom.uid import namespace
from service.ingest import Rules, Upload, describe_upload, digest_of, request_name
from tests.describing import rules

FOLDER = Path(__file__).parent / "golden"
TINY = FOLDER / "tiny.jpg"
TEMPLATES = sorted((Path(__file__).parents[1] / "templates").glob("*.json"))
RULES = Rules(
    {path.stem: parse_template(path.stem, path.read_bytes()) for path in TEMPLATES},
    namespace("golden"),
    1_000_000,
    rules().policy,
)
SAID = {
    "PatientName": "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "PatientID": "P-7",
    "PatientBirthDate": "19700101",
    "PatientSex": "O",
    "PatientWeight": 70.5,
    "StudyDate": "20240305",
    "StudyTime": "140709",
    "AccessionNumber": "A-1",
    "SeriesNumber": 2,
    "ImageLaterality": "L",
    "PatientComments": "two\r\nlines",
    "AnatomicRegionSequence": [
        {"CodeValue": "85562004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Hand"}
    ],
}
# What some templates want besides.
WANTED = {
    "Manufacturer": "Acme",
    "ManufacturerModelName": "Dermatoscope",
    "DeviceSerialNumber": "7",
    "SoftwareVersions": "1.0",
    "ContentDate": "20240305",
    "ContentTime": "140709",
    "AcquisitionDateTime": "20240305140709+0100",
    "AcquisitionDeviceTypeCodeSequence": "external camera",
}
# One request of two instances shows the form of both wires.
SENT = ("secondary-capture-image", "vl-photographic-image")


def instance_of(name: str) -> Instance:
    """Describe the picture with a template."""
    wanted = {
        keyword: WANTED[keyword]
        for keyword in set(consistency.WANTED.get(RULES.templates[name].sop_class, ()))
        & set(WANTED)
    }
    image, attributes = TINY.read_bytes(), parse(SAID | wanted)
    digest = digest_of(image)
    request = request_name([digest], [attributes], name, "")
    return describe_upload(Upload(image, digest, attributes, name, "file", request), RULES).instance


def golden() -> dict[str, bytes]:
    """Return the content of each file by its name."""
    instances = {name: instance_of(name) for name in RULES.templates}
    files = {
        f"{name}.json": json_model.dumps(json_model.to_json(each.dataset))
        for name, each in instances.items()
    }
    files["tiny-canonical.jpg"] = bytes(instances[SENT[0]].codestream)
    for wire in ("json", "part10"):
        payload = package([instances[name] for name in SENT], wire)
        head = f"Content-Type: {payload.content_type}\r\nContent-Length: {len(payload)}\r\n\r\n"
        files[f"stow-{wire}.http"] = head.encode() + b"".join(payload)
    return files


@pytest.mark.parametrize("name", sorted(golden()))
def test_the_bytes_are_those_of_ever(name: str) -> None:
    assert golden()[name] == (FOLDER / name).read_bytes()


def test_no_golden_file_is_left_over() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {TINY.name, *golden()}


if __name__ == "__main__":
    for file, content in golden().items():
        (FOLDER / file).write_bytes(content)
