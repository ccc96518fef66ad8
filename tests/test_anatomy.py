"""Body sites by name, by code, or in full."""

import pytest
from pydicom import Dataset
from pydicom.sr.codedict import codes

from service.dicom import anatomy, attributes
from service.errors import BadAttribute
from tests.describing import SAID, described
from tests.jpegs import make_jpeg

JPEG = make_jpeg(32, 16)


def site_of(said: object) -> Dataset:
    dataset = described(JPEG, said=SAID | {"AnatomicRegionSequence": said}).instance.dataset
    (item,) = dataset.AnatomicRegionSequence
    assert isinstance(item, Dataset)
    return item


@pytest.fixture(scope="module")
def meanings() -> dict[str, set[str]]:
    """Return the meanings that DICOM's context groups give SNOMED CT codes, by pydicom."""
    found: dict[str, set[str]] = {}
    for name in codes.SCT.dir():
        several = getattr(codes.SCT, name)
        for code in several if isinstance(several, list) else [several]:
            found.setdefault(code.value, set()).add(code.meaning.lower())
    return found


@pytest.mark.parametrize("name", anatomy.SITES)
def test_a_name_and_its_code_mean_the_same(name: str, meanings: dict[str, set[str]]) -> None:
    assert name in meanings[anatomy.SITES[name]]


def test_no_two_names_have_one_code() -> None:
    assert len(set(anatomy.SITES.values())) == len(anatomy.SITES)


@pytest.mark.parametrize(
    "said", ["Skin of back", "skin of back", " SKIN  OF BACK ", "skin_of_back", "skin-of-back"]
)
def test_a_site_is_given_by_its_name_however_it_is_written(said: str) -> None:
    item = site_of(said)
    assert (item.CodeValue, item.CodingSchemeDesignator) == ("66643007", "SCT")
    assert item.CodeMeaning == "Skin of back"


def test_a_site_is_given_by_its_code() -> None:
    assert site_of("66643007") == site_of("skin of back")


def test_any_other_site_is_given_in_full() -> None:
    full = {"CodeValue": "1", "CodingSchemeDesignator": "99ALEPH", "CodeMeaning": "Tail"}
    assert site_of(full) == site_of([full])
    assert site_of(full).CodeMeaning == "Tail"


@pytest.mark.parametrize("said", ["Zebedee", "99999999", "skin of", "AnatomicRegionSequence"])
def test_an_unknown_site_is_refused_and_not_repeated(said: str) -> None:
    with pytest.raises(BadAttribute, match="none of the codes known by name") as caught:
        attributes.parse({"AnatomicRegionSequence": said})
    assert caught.value.where == "AnatomicRegionSequence"
    assert said == "AnatomicRegionSequence" or said not in str(caught.value)
    assert "jpegstow codes" in caught.value.mend


def test_only_the_region_is_known_by_name() -> None:
    with pytest.raises(BadAttribute, match="list of objects"):
        attributes.parse({"PrimaryAnatomicStructureSequence": "skin of back"})
