"""The line from an upload to an outcome, with a store that is a list."""

import copy
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.dicom import consistency, json_model, part10
from service.dicom.attributes import parse
from service.dicom.dataset import Instance
from service.dicom.outcome import Outcome, Stored, Unavailable
from service.dicom.stow import package
from service.dicom.template import parse as parse_template
from service.dicom.uid import namespace
from service.errors import (
    BadAttribute,
    BadRequest,
    BadSettings,
    BadTemplate,
    DamagedJpeg,
    JpegstowError,
    NotAJpeg,
    TooLarge,
    UnknownTemplate,
    UnsupportedJpeg,
)
from service.ingest import (
    Rules,
    Upload,
    describe_upload,
    digest_of,
    ingest,
    request_name,
)
from tests.describing import rules
from tests.jpegs import make_jpeg, picture
from tests.quickness import quick

FOLDER = Path(__file__).parents[1] / "templates"
TEMPLATES = {p.stem: parse_template(p.stem, p.read_bytes()) for p in sorted(FOLDER.glob("*.json"))}
RULES = Rules(TEMPLATES, namespace("a secret"), 10_000, rules().policy)
# What makes an instance of whatever is said.
MODEST = sorted(
    name for name, each in TEMPLATES.items() if each.sop_class not in consistency.WANTED
)
JPEG = make_jpeg(32, 16)
PHOTOGRAPH, CAPTURE = "vl-photographic-image", "secondary-capture-image"
SAID: dict[str, Any] = {
    "PatientName": "Doe^Jane",
    "PatientID": "P-7",
    "StudyInstanceUID": "1.2.3",
    "AnatomicRegionSequence": "hand",
}


def jpeg2000(width: int, height: int) -> bytes:
    file = BytesIO()
    picture(width, height).save(file, "JPEG2000")
    return file.getvalue()


def upload(
    image: bytes = JPEG,
    said: dict[str, Any] | None = None,
    template: str = PHOTOGRAPH,
    key: str = "",
) -> Upload:
    attributes = parse(SAID if said is None else said)
    digest = digest_of(image)
    name = request_name([digest], [attributes], template, key)
    return Upload(image, digest, attributes, template, "file", name, key)


def everything(made: Upload, rules: Rules = RULES) -> bytes:
    """Return all that is made of an upload, in both wire formats."""
    instance = describe_upload(made, rules).instance
    return b"".join([*package([instance], "json"), *package([instance], "part10")])


def test_the_same_upload_gives_the_same_bytes_whatever_came_between() -> None:
    first = everything(upload())
    others = [
        {"PatientName": "Other^Name", "ImageLaterality": "L"},
        {"StudyInstanceUID": "1.2.4", "Manufacturer": "Acme"},
        {},
    ]
    for said in others:
        for template in MODEST:
            assert everything(upload(said=said, template=template)) != first
    assert everything(upload()) == first


def test_describing_changes_neither_template_nor_attributes() -> None:
    before = copy.deepcopy({name: each.dataset for name, each in TEMPLATES.items()})
    made = upload()
    attributes = copy.deepcopy(made.attributes)
    described = describe_upload(made, RULES).instance.dataset
    described.InstitutionName = "added afterwards"
    del described.Modality
    del described.PatientID
    everything(made)
    assert {name: each.dataset for name, each in TEMPLATES.items()} == before
    assert json_model.to_json(made.attributes) == json_model.to_json(attributes)


def test_one_upload_may_be_described_twice() -> None:
    made = upload()
    assert everything(made) == everything(made)


def test_eight_threads_describe_what_one_does() -> None:
    uploads = [
        upload(make_jpeg(32, 16, seed=n % 4), SAID | {"InstanceNumber": n}, name)
        for n in range(24)
        for name in MODEST
    ]
    alone = [
        everything(replace(each, attributes=copy.deepcopy(each.attributes))) for each in uploads
    ]
    shared = upload()
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(everything, uploads))
        again = set(threads.map(everything, [shared] * 64))
    assert together == alone
    assert again == {everything(upload())}


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (upload(), True),
        (upload(said=dict(reversed(SAID.items()))), True),
        (replace(upload(), source="http"), True),
        (replace(upload(), request="another request"), True),
        (upload(key="a key"), False),
        (upload(make_jpeg(32, 16, comment=b"x")), False),
        (upload(template=CAPTURE), False),
        (upload(said=SAID | {"StudyInstanceUID": "1.2.4"}), False),
        (upload(said=SAID | {"PatientName": "Doe^Joan"}), False),
    ],
)
def test_the_same_picture_with_the_same_words_is_the_same_instance(
    other: Upload,
    same: bool,  # noqa: FBT001
) -> None:
    one, two = describe_upload(upload(), RULES).instance, describe_upload(other, RULES).instance
    assert (one.sop_instance_uid == two.sop_instance_uid) is same


def test_another_namespace_makes_other_instances() -> None:
    elsewhere = replace(RULES, namespace=namespace("another secret"))
    one = describe_upload(upload(), RULES).instance
    other = describe_upload(upload(), elsewhere).instance
    assert one.sop_instance_uid != other.sop_instance_uid


def test_a_template_of_the_same_name_and_other_content_makes_another_instance() -> None:
    model = json_model.to_json(TEMPLATES[CAPTURE].dataset) | {"StudyDescription": "Acme"}
    mine = parse_template(CAPTURE, json_model.dumps(model))
    one, other = (
        describe_upload(upload(template=CAPTURE), replace(RULES, templates={CAPTURE: each}))
        for each in (TEMPLATES[CAPTURE], mine)
    )
    assert one.instance.series_instance_uid == other.instance.series_instance_uid
    assert one.instance.sop_instance_uid != other.instance.sop_instance_uid


def test_what_was_changed_in_the_jpeg_is_told() -> None:
    assert describe_upload(upload(), RULES).changes == ("removed JFIF (18 bytes)",)
    lying = make_jpeg(32, 16, orientation=6, progressive=True)[:-2]
    changes = describe_upload(upload(lying), RULES).changes
    assert [change for change in changes if not change.startswith("removed")] == [
        "added the missing EOI",
        "recoded progressive as baseline",
        "turned a quarter clockwise without loss",
    ]


def test_request_names_are_frozen_for_ever() -> None:
    name = request_name(["0" * 64, "1" * 64], [parse({"PatientID": "P-7"})], PHOTOGRAPH, "a key")
    assert name == "17907c981616937338797d2d1bd78d05d5228184db354da0d91eb583ddf09ddf"


REQUEST = (["0" * 64, "1" * 64], [{"PatientID": "P-7"}, {}], PHOTOGRAPH, "a key")


@pytest.mark.parametrize(
    ("digests", "said", "template", "key"),
    [
        (["1" * 64, "0" * 64], [{"PatientID": "P-7"}, {}], PHOTOGRAPH, "a key"),
        (["0" * 64], [{"PatientID": "P-7"}, {}], PHOTOGRAPH, "a key"),
        (["0" * 64, "1" * 64], [{}, {"PatientID": "P-7"}], PHOTOGRAPH, "a key"),
        (["0" * 64, "1" * 64], [{"PatientID": "P-7"}], PHOTOGRAPH, "a key"),
        (["0" * 64, "1" * 64], [{"PatientID": "P-7"}, {}], CAPTURE, "a key"),
        (["0" * 64, "1" * 64], [{"PatientID": "P-7"}, {}], PHOTOGRAPH, ""),
        (["0" * 64, "1" * 64], [{"PatientID": "P-7"}, {}], "a key", PHOTOGRAPH),
    ],
)
def test_other_requests_have_other_names(
    digests: list[str], said: list[dict[str, Any]], template: str, key: str
) -> None:
    first = request_name(REQUEST[0], [parse(each) for each in REQUEST[1]], REQUEST[2], REQUEST[3])
    assert request_name(digests, [parse(each) for each in said], template, key) != first


REFUSED: list[tuple[Upload, type[JpegstowError], str]] = [
    (upload(template="nonsense"), UnknownTemplate, "secondary-capture-image, vl-endoscopic"),
    (upload(template="dermoscopic-photography-image"), BadAttribute, "wants Manufacturer"),
    (upload(b""), NotAJpeg, "empty"),
    (upload(b"%PDF-1.7"), NotAJpeg, "PDF"),
    (upload(JPEG[:300]), DamagedJpeg, "ends within"),
    (upload(JPEG[:-50]), DamagedJpeg, "entropy-coded data is damaged"),
    (upload(make_jpeg(16, 16, "CMYK")), UnsupportedJpeg, "four components"),
    (upload(make_jpeg(101, 100, "L")), TooLarge, "101 x 100 pixels, 10000 are allowed"),
    (upload(jpeg2000(101, 100)), TooLarge, "101 x 100 pixels, 10000 are allowed"),
]


@pytest.mark.parametrize(("made", "kind", "says"), REFUSED)
def test_what_cannot_be_described_says_why(
    made: Upload, kind: type[JpegstowError], says: str
) -> None:
    with pytest.raises(kind, match=says):
        describe_upload(made, RULES)


@settings(deadline=None)
@given(st.binary(max_size=300) | st.integers(0, len(JPEG)).map(lambda end: JPEG[:end]))
@quick(2)
def test_any_upload_is_described_or_refused(image: bytes) -> None:
    (result,) = ingest([upload(image)], RULES, Shelf())
    assert isinstance(result.outcome, Stored | JpegstowError)


@dataclass
class Shelf:
    """A store that takes everything but what it is told to refuse."""

    refusing: set[str] = field(default_factory=set)
    requests: list[list[Instance]] = field(default_factory=list)
    wire: str = "json"

    def store(
        self, instances: Sequence[Instance], within: float | None = None
    ) -> Mapping[str, Outcome]:
        assert within is None
        self.requests.append(list(instances))
        uids = [instance.sop_instance_uid for instance in instances]
        return {u: Unavailable("full") if u in self.refusing else Stored(f"/{u}") for u in uids}


def test_each_upload_has_a_result_in_its_place() -> None:
    uploads = [upload(), upload(b"junk"), upload(make_jpeg(16, 16)), upload(template="nonsense")]
    shelf = Shelf()
    results = ingest(uploads, RULES, shelf)
    assert [result.upload for result in results] == uploads
    kinds = [type(result.outcome) for result in results]
    assert kinds == [Stored, NotAJpeg, Stored, UnknownTemplate]
    assert [result.described is None for result in results] == [False, True, False, True]
    ((first, second),) = shelf.requests
    assert results[0].outcome == Stored(f"/{first.sop_instance_uid}")
    assert results[2].outcome == Stored(f"/{second.sop_instance_uid}")


def test_the_same_picture_twice_is_sent_once_and_answered_twice() -> None:
    shelf = Shelf()
    one, two = ingest([upload(), upload()], RULES, shelf)
    assert one.outcome == two.outcome
    assert [len(request) for request in shelf.requests] == [1]


def test_a_refusal_is_of_its_own_instance() -> None:
    uploads = [upload(), upload(make_jpeg(16, 16))]
    refused = describe_upload(uploads[1], RULES).instance.sop_instance_uid
    results = ingest(uploads, RULES, Shelf({refused}))
    assert [type(result.outcome) for result in results] == [Stored, Unavailable]


@pytest.mark.parametrize("uploads", [[], [upload(b"junk")]])
def test_nothing_is_sent_where_nothing_is_described(uploads: list[Upload]) -> None:
    shelf = Shelf()
    assert len(ingest(uploads, RULES, shelf)) == len(uploads)
    assert shelf.requests == []


def test_what_is_sent_holds_nothing_of_the_upload_but_its_picture() -> None:
    image = (
        make_jpeg(32, 16, taken="2024:03:05 14:07:09", gps=True, comment=b"Zebedee") + b"Zebedee"
    )
    instance = describe_upload(upload(image), RULES).instance
    sent = b"".join(package([instance], "part10"))
    assert b"Zebedee" not in sent
    assert b"Exif" not in sent
    assert part10.holds(
        part10.decode(
            b"".join(part10.encode(instance.dataset, instance.codestream, instance.transfer_syntax))
        ),
        instance.dataset,
        instance.codestream,
    )


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (BadRequest, 400),
        (BadAttribute, 400),
        (UnknownTemplate, 400),
        (TooLarge, 413),
        (NotAJpeg, 415),
        (UnsupportedJpeg, 415),
        (DamagedJpeg, 422),
        (BadTemplate, 500),
    ],
)
def test_an_error_says_what_where_and_how_to_mend_it(
    kind: type[JpegstowError], status: int
) -> None:
    error = kind("it is broken", where="byte 5", mend="mend it")
    assert str(error) == "it is broken (byte 5); mend it"
    assert str(kind("it is broken")) == "it is broken"
    assert (error.http_status, error.transient) == (status, False)
    assert error.title
    assert error.reason == kind.reason != JpegstowError.reason
    assert kind("x", reason="slug").reason == "slug"


def test_bad_settings_list_their_problems() -> None:
    error = BadSettings(["PORT: it is wrong", "HOST: it is wrong"])
    assert error.problems == ("PORT: it is wrong", "HOST: it is wrong")
    assert str(error) == "the configuration can't be used: PORT: it is wrong; HOST: it is wrong"
