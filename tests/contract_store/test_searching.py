"""Search (PS3.18 10.6) within what the Cloud Healthcare API documents."""

from collections.abc import Callable

import pytest

from tests.contract_store.conftest import Kept
from tests.contract_store.stores import DICOM_JSON, Store, instances, values

STUDY, SERIES, INSTANCE = "0020000D", "0020000E", "00080018"

# What narrows a search, by the values of what is kept.
KEYS: dict[str, Callable[[Kept], str]] = {
    "PatientID": lambda kept: f"P-{kept.word}",
    "PatientName": lambda kept: f"{kept.word}%5EEva",
    "ReferringPhysicianName": lambda kept: f"Wolf%5E{kept.word}&PatientID=P-{kept.word}",
    "AccessionNumber": lambda kept: f"{kept.word}&PatientID=P-{kept.word}",
    "StudyInstanceUID": lambda kept: kept.first.uids.study,
    "StudyDate": lambda kept: f"20240305&PatientID=P-{kept.word}",
}
KEYWORDS = list(KEYS)


def query(kept: Kept, keyword: str) -> str:
    return f"{keyword}={KEYS[keyword](kept)}"


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_study_is_found_by_each_key(store: Store, kept: Kept, keyword: str) -> None:
    found = store.search("studies", query(kept, keyword))
    others = {"PatientName"} & {keyword}
    expected = {kept.first.uids.study} | {each.uids.study for each in [kept.other] if others}
    assert set(values(found, STUDY)) == expected


@pytest.mark.parametrize("keyword", [*KEYWORDS])
def test_the_series_of_a_study_are_found_by_the_study_s_keys(
    store: Store, kept: Kept, keyword: str
) -> None:
    found = store.search("series", query(kept, keyword) + f"&PatientID=P-{kept.word}")
    assert set(values(found, SERIES)) == {kept.first.uids.series, kept.endoscopic.uids.series}


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_instances_are_found_by_the_study_s_keys(store: Store, kept: Kept, keyword: str) -> None:
    found = store.search("instances", query(kept, keyword) + f"&PatientID=P-{kept.word}")
    assert instances(found) == {each.uids.instance for each in kept.photographs[:3]}


def test_series_are_found_by_modality(store: Store, kept: Kept) -> None:
    found = store.search("series", f"Modality=ES&PatientID=P-{kept.word}")
    assert values(found, SERIES) == [kept.endoscopic.uids.series]


def test_an_instance_is_found_by_its_uid(store: Store, kept: Kept) -> None:
    found = store.search("instances", f"SOPInstanceUID={kept.second.uids.instance}")
    assert values(found, INSTANCE) == [kept.second.uids.instance]


def test_a_key_is_named_by_its_tag_too(store: Store, kept: Kept) -> None:
    found = store.search("studies", f"00100020=P-{kept.word}")
    assert values(found, STUDY) == [kept.first.uids.study]


def test_the_series_of_a_path_are_those_of_the_study(store: Store, kept: Kept) -> None:
    found = store.search(f"studies/{kept.first.uids.study}/series")
    assert set(values(found, SERIES)) == {kept.first.uids.series, kept.endoscopic.uids.series}


def test_the_instances_of_a_path_are_those_of_the_study_or_series(store: Store, kept: Kept) -> None:
    study = f"studies/{kept.first.uids.study}"
    found = store.search(f"{study}/instances")
    assert instances(found) == {each.uids.instance for each in kept.photographs[:3]}
    found = store.search(f"{study}/series/{kept.first.uids.series}/instances")
    assert instances(found) == {each.uids.instance for each in kept.photographs[:2]}


def test_a_path_and_a_query_that_contradict_each_other_find_nothing(
    store: Store, kept: Kept
) -> None:
    study = f"studies/{kept.first.uids.study}"
    assert store.search(f"{study}/instances", f"PatientID=Q-{kept.word}") == []


@pytest.mark.parametrize(
    ("dates", "count"),
    [
        ("19991231-20240305", 2),
        ("-20240305", 2),
        ("19991231-", 2),
        ("20240101-20241231", 1),
        ("20000101-", 1),
    ],
)
def test_a_range_of_dates_includes_both_ends(
    store: Store, kept: Kept, dates: str, count: int
) -> None:
    found = store.search("studies", f"AccessionNumber={kept.word}&StudyDate={dates}")
    expected = [kept.first.uids.study, kept.other.uids.study][:count]
    assert sorted(values(found, STUDY)) == sorted(expected)


@pytest.mark.parametrize("form", ["small", "capital", "cut"])
def test_a_fuzzy_name_is_the_beginning_of_one_of_its_words(
    store: Store, kept: Kept, form: str
) -> None:
    words = {"small": kept.word.lower(), "capital": kept.word.upper(), "cut": kept.word[:4]}
    asked = f"fuzzymatching=true&PatientName={words[form]}&PatientID=P-{kept.word}"
    found = store.search("studies", asked)
    assert values(found, STUDY) == [kept.first.uids.study]


def test_a_name_is_found_in_any_script(store: Store) -> None:
    photograph = store.photograph(PatientName="Даниленко^Ольга", PatientID=store.root)
    store.put(photograph.file)
    asked = "PatientName=%D0%94%D0%B0%D0%BD%D0%B8%D0%BB%D0%B5%D0%BD%D0%BA%D0%BE%5E"
    asked += f"%D0%9E%D0%BB%D1%8C%D0%B3%D0%B0&PatientID={store.root}"
    assert values(store.search("studies", asked), STUDY) == [photograph.uids.study]


def test_a_name_that_is_not_fuzzy_is_the_whole_name(store: Store, kept: Kept) -> None:
    assert store.search("studies", f"PatientName={kept.word}") == []


@pytest.mark.parametrize("wildcard", ["*", "?"])
def test_wildcards_are_refused(store: Store, kept: Kept, wildcard: str) -> None:
    answer = store.get("/studies", DICOM_JSON, f"PatientName={kept.word}%5E{wildcard}")
    assert answer.status == 400


def test_an_attribute_that_is_not_searchable_is_refused(store: Store) -> None:
    assert store.get("/studies", DICOM_JSON, "StudyDescription=x").status == 400


@pytest.mark.parametrize(
    "asked",
    [
        "limit=-1",
        "offset=-1",
        "limit=many",
        "limit=999999",
        "offset=1000001",
        "includefield=Nonsense",
        "Nonsense=1",
        "StudyDate=yesterday",
    ],
)
def test_a_query_that_can_not_be_understood_is_refused(store: Store, asked: str) -> None:
    assert store.get("/studies", DICOM_JSON, asked).status == 400


def test_pages_join_to_the_whole(store: Store, kept: Kept) -> None:
    where = f"PatientID=P-{kept.word}"
    pages = [store.search("instances", f"{where}&limit=1&offset={offset}") for offset in range(4)]
    assert list(map(len, pages)) == [1, 1, 1, 0]
    whole = store.search("instances", where)
    assert instances([page[0] for page in pages[:3]]) == instances(whole)


def test_each_level_has_its_own_attributes(store: Store, kept: Kept) -> None:
    where = f"StudyInstanceUID={kept.first.uids.study}"
    (study,) = store.search("studies", where)
    assert study["00100010"]["Value"] == [{"Alphabetic": f"{kept.word}^Eva"}]
    assert study["00201206"]["Value"] == [2]
    assert study["00201208"]["Value"] == [3]
    assert sorted(study["00080061"]["Value"]) == ["ES", "XC"]
    series = {values([each], SERIES)[0]: each for each in store.search("series", where)}
    assert series[kept.first.uids.series]["00201209"]["Value"] == [2]
    assert series[kept.endoscopic.uids.series]["00080060"]["Value"] == ["ES"]
    asked = f"SOPInstanceUID={kept.first.uids.instance}"
    (instance,) = store.search("instances", asked)
    assert instance["00280010"]["Value"] == [48]
    assert instance["00200013"]["Value"] == [1]


@pytest.mark.parametrize("level", ["studies", "series", "instances"])
def test_the_url_of_a_result_leads_to_it(store: Store, kept: Kept, level: str) -> None:
    first, *_ = store.search(level, f"StudyInstanceUID={kept.first.uids.study}")
    url = first["00081190"]["Value"][0]
    assert url.startswith(f"{store.base}{kept.first.study}")
    assert store.get(f"{url}/metadata", DICOM_JSON).status == 200


@pytest.mark.parametrize("field", ["PhotometricInterpretation", "00280004"])
def test_a_field_that_is_asked_for_is_included(store: Store, kept: Kept, field: str) -> None:
    asked = f"SOPInstanceUID={kept.first.uids.instance}"
    (without,) = store.search("instances", asked)
    (having,) = store.search("instances", f"{asked}&includefield={field}")
    assert "00280004" not in without
    assert having["00280004"]["Value"] == ["YBR_FULL_422"]


def test_all_fields_are_those_of_the_metadata(store: Store, kept: Kept) -> None:
    asked = f"SOPInstanceUID={kept.second.uids.instance}&includefield=all"
    (found,) = store.search("instances", asked)
    (metadata,) = store.get(f"{kept.second.path}/metadata", DICOM_JSON).json()
    assert set(metadata) <= set(found)


def test_results_are_xml_for_who_wants_them(store: Store, kept: Kept) -> None:
    accept = 'multipart/related; type="application/dicom+xml"'
    answer = store.get("/studies", accept, f"StudyInstanceUID={kept.first.uids.study}")
    assert (answer.status, answer.media_type) == (200, "multipart/related")
    ((kind, document),) = answer.parts()
    assert kind.startswith("application/dicom+xml")
    assert kept.first.uids.study.encode() in document


@pytest.mark.parametrize("accept", ["text/csv", "application/dicom+json;q=0"])
def test_results_in_another_form_are_not_acceptable(store: Store, accept: str) -> None:
    assert store.get("/studies", accept, "limit=1").status == 406


@pytest.mark.parametrize(
    "accept", ["*/*", "application/*", "application/json", "text/html, */*;q=0.1"]
)
def test_results_are_json_for_who_takes_anything(store: Store, accept: str) -> None:
    answer = store.get("/studies", accept, "limit=1")
    assert (answer.status, answer.media_type) == (200, DICOM_JSON)


def test_what_is_not_there_is_an_empty_list(store: Store) -> None:
    assert store.search("studies", f"StudyInstanceUID={store.root}.999") == []
