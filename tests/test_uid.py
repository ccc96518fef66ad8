"""UIDs that never change: the same names the same UID, other names another."""

import re
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.uid import UID

from service.dicom import attributes, uid
from service.dicom.uid import Identity, Names, identify, name_based, namespace
from service.errors import BadAttribute

SPACE = namespace("a secret")
NAMES = Names("0" * 64, "1" * 64, "a request")
TEXTS = st.lists(st.text(st.characters(), max_size=6), max_size=4)


def identity(
    said: dict[str, Any], names: Names = NAMES, template: dict[str, str] | None = None
) -> Identity:
    """Name an instance of a template that holds these keywords."""
    caller = attributes.parse(said)
    described = Dataset()
    kind = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "OT"}
    for keyword, value in (kind | (template or {})).items():
        setattr(described, keyword, value)
    described.update(caller)
    return identify(SPACE, caller, described, names)


def test_a_namespace_is_frozen_for_ever() -> None:
    assert str(namespace("")) == "e3b0c442-98fc-5c14-9afb-f4c8996fb924"
    assert str(SPACE) == "984ca516-2200-534c-9921-48f1820b7105"
    assert SPACE.version == 5


@pytest.mark.parametrize(
    ("names", "frozen"),
    [
        ((), "2.25.204629848148678979632116411950571880918"),
        (("",), "2.25.3419321036227769768450790683735921392"),
        (("study", "accession", "", "P-7", "A-1"), "2.25.48445758051335380844004635648915734179"),
        (("série", "🦷", '"],["'), "2.25.180887290913510536776529569575401862144"),
    ],
)
def test_name_based_uids_are_frozen_for_ever(names: tuple[str, ...], frozen: str) -> None:
    assert name_based(uuid.UUID("e3b0c442-98fc-5c14-9afb-f4c8996fb924"), *names) == frozen


@pytest.mark.parametrize(
    ("said", "frozen"),
    [
        (
            {"PatientID": "P-7", "AccessionNumber": "A-1"},
            (
                "2.25.37132852588251705561223455590241484102",
                "2.25.58902849143206737496939929555171641652",
                "2.25.41060652417598843771403395431917681385",
                "2.25.227879607015706513902336790273600777239",
            ),
        ),
        (
            {"PatientID": "P-7", "StudyID": "S-1", "SeriesNumber": 2},
            (
                "2.25.108463146083159447189460091691205431731",
                "2.25.233004241861092542014076310505572364354",
                "2.25.106209438797989613841770766434540945624",
                "2.25.225530107848977198516333048963722275206",
            ),
        ),
        (
            {"PatientName": "Doe^Jane"},
            (
                "2.25.307665837886589195735485887873293976009",
                "2.25.146492217482387159226609298869108777929",
                "2.25.261096824262431567836979404704117000881",
                "2.25.219305242381611208444765110411722955618",
            ),
        ),
        (
            {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4"},
            (
                "1.2.3",
                "1.2.3.4",
                "2.25.238498636967586470100898677591592994458",
                "2.25.58525436929163833293451541335452361100",
            ),
        ),
    ],
)
def test_identities_are_frozen_for_ever(said: dict[str, Any], frozen: tuple[str, ...]) -> None:
    assert identity(said) == Identity(*frozen)


def test_digests_are_frozen_for_ever() -> None:
    assert (
        uid.digest("a", "b") == "3554d2b8a1e34099053865de8576d1460b807430ec8c6b85315c9607ba93d308"
    )


@settings(deadline=None)
@given(st.text(st.characters()), TEXTS)
def test_a_uid_is_one_by_the_rules(secret: str, names: list[str]) -> None:
    secret = secret.encode("utf-8", "replace").decode()
    made = name_based(namespace(secret), *names)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", made)
    assert len(made) <= 64
    assert UID(made).is_valid
    assert uuid.UUID(int=int(made[5:])).version == 5


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_no_two_lists_of_names_share_a_uid(one: list[str], other: list[str]) -> None:
    assert (name_based(SPACE, *one) == name_based(SPACE, *other)) == (one == other)
    assert (uid.digest(*one) == uid.digest(*other)) == (one == other)


@settings(deadline=None)
@given(st.lists(st.text('",[]\\a', max_size=3), max_size=5), st.integers(0, 4))
def test_names_do_not_run_into_each_other(names: list[str], at: int) -> None:
    joined = [*names[:at], "".join(names[at : at + 2]), *names[at + 2 :]]
    assert (name_based(SPACE, *joined) == name_based(SPACE, *names)) == (joined == names)


def test_another_secret_makes_other_uids() -> None:
    assert name_based(namespace("a"), "x") != name_based(namespace("b"), "x")


ACCESSION = {"PatientID": "P-7", "AccessionNumber": "A-1"}
STUDY_ID = {"PatientID": "P-7", "StudyID": "S-1"}
LATER = Names("0" * 64, "1" * 64, "another request")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (ACCESSION, ACCESSION, True),
        (ACCESSION, ACCESSION | {"StudyID": "S-1", "PatientName": "Doe"}, True),
        (ACCESSION, ACCESSION | {"AccessionNumber": "A-2"}, False),
        (ACCESSION, ACCESSION | {"PatientID": "P-8"}, False),
        (ACCESSION, ACCESSION | {"IssuerOfPatientID": "X"}, False),
        (STUDY_ID, STUDY_ID | {"AccessionNumber": ""}, True),
        (STUDY_ID, STUDY_ID | {"StudyID": "S-2"}, False),
        (STUDY_ID, {"PatientID": "P-7", "AccessionNumber": "S-1"}, False),
        ({"AccessionNumber": "A-1"}, {"AccessionNumber": "A-1"}, False),
        ({"PatientID": "P-7"}, {"PatientID": "P-7"}, False),
        ({}, {}, False),
        ({"StudyInstanceUID": "1.2"}, {"StudyInstanceUID": "1.2", "PatientID": "P-7"}, True),
        (ACCESSION | {"StudyInstanceUID": "1.2"}, {"StudyInstanceUID": "1.2"}, True),
    ],
)
def test_two_requests_share_a_study_by_accession_number_or_study_id(
    one: dict[str, Any],
    other: dict[str, Any],
    same: bool,  # noqa: FBT001
) -> None:
    first, second = identity(one), identity(other, LATER)
    assert (first.study_instance_uid == second.study_instance_uid) is same


def test_without_a_patient_the_images_of_one_request_share_a_study() -> None:
    other_image = Names("2" * 64, "1" * 64, "a request")
    first, second = identity({}), identity({"PatientName": "Doe"}, other_image)
    assert first.study_instance_uid == second.study_instance_uid
    assert first.series_instance_uid == second.series_instance_uid
    assert first.sop_instance_uid != second.sop_instance_uid


@pytest.mark.parametrize(
    ("said", "template", "same"),
    [
        ({}, {}, True),
        ({"PatientName": "Doe"}, {}, True),
        ({"SeriesNumber": 1}, {}, False),
        ({"SeriesDescription": "left"}, {}, False),
        ({"Modality": "XC"}, {}, False),
        ({}, {"Modality": "XC"}, False),
        ({}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.77.1.4"}, False),
        ({"SeriesInstanceUID": "1.2"}, {}, False),
    ],
)
def test_a_series_holds_what_is_of_one_kind(
    said: dict[str, Any],
    template: dict[str, str],
    same: bool,  # noqa: FBT001
) -> None:
    first, second = identity(ACCESSION), identity(ACCESSION | said, template=template)
    assert first.study_instance_uid == second.study_instance_uid
    assert (first.series_instance_uid == second.series_instance_uid) is same


@pytest.mark.parametrize(
    "names",
    [
        Names("f" * 64, "1" * 64, "a request"),
        Names("0" * 64, "f" * 64, "a request"),
        Names("0" * 64, "1" * 64, "a request", "a key"),
        Names("0" * 64, "1" * 64, "a request", "another key"),
    ],
)
def test_image_template_and_idempotency_key_tell_instances_apart(names: Names) -> None:
    first, second = identity(ACCESSION), identity(ACCESSION, names)
    assert first.series_instance_uid == second.series_instance_uid
    assert first.sop_instance_uid != second.sop_instance_uid


def test_the_request_does_not_tell_instances_of_one_study_apart() -> None:
    assert identity(ACCESSION) == identity(ACCESSION, LATER)


def test_every_attribute_tells_instances_apart() -> None:
    said = [{}, {"PatientComments": "a"}, {"PatientComments": ""}, {"PatientComments": "b"}]
    made = {identity(ACCESSION | more).sop_instance_uid for more in said}
    assert len(made) == len(said)


def test_study_series_and_instance_never_share_a_uid() -> None:
    made = identity({})
    assert len({made.study_instance_uid, made.series_instance_uid, made.sop_instance_uid}) == 3


@pytest.mark.parametrize(
    "said", [{}, {"AccessionNumber": "A-1"}, {"StudyID": "S-1"}, {"PatientID": "P-7"}], ids=str
)
def test_a_series_whose_study_would_be_another_with_each_request_is_refused(
    said: dict[str, Any],
) -> None:
    with pytest.raises(BadAttribute, match="without its study") as caught:
        identity(said | {"SeriesInstanceUID": "1.2"})
    assert caught.value.where == "SeriesInstanceUID"
    assert identity(ACCESSION | {"SeriesInstanceUID": "1.2"}).series_instance_uid == "1.2"
