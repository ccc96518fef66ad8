"""Search: what can be asked, what comes back, and what is refused rather than ignored."""

from collections.abc import Iterator
from io import BytesIO
from itertools import chain
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from flask.testing import FlaskClient

from service.archive import Archive, describe
from service.archive.index import Kept, add
from service.dicom import multipart, part10
from service.dicomweb import create_app
from tests.archive_instances import client_of, dicom_file, put

BASE = "http://localhost/dicomWeb/studies"
SECRET = "Geheim"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """Serve two studies with two series each, of one and two instances."""
    archive = Archive(tmp_path_factory.mktemp("archive"))
    for number in range(6):
        file = dicom_file(
            StudyInstanceUID=f"1.{number // 3}",
            SeriesInstanceUID=f"2.{number // 3}.{min(number % 3, 1)}",
            SOPInstanceUID=f"3.{number}",
            PatientID=f"P{number // 3}",
            StudyDate=f"2024010{1 + number // 3}",
            SeriesDescription="wound",
            ImageComments="close up",
        )
        put(archive, file)
    yield client_of(archive)
    archive.close()


def search(client: FlaskClient, path: str, **parameters: Any) -> list[Any]:
    response = client.get(f"/dicomWeb{path}", query_string=parameters)
    assert response.status_code == 200
    assert response.content_type == "application/dicom+json"
    found = response.get_json(force=True)
    assert isinstance(found, list)
    return found


def refusal(client: FlaskClient, path: str, **parameters: Any) -> str:
    response = client.get(f"/dicomWeb{path}", query_string=parameters)
    envelope = response.get_json()["error"]
    assert (response.status_code, envelope["code"]) == (400, 400)
    assert envelope["status"] == "INVALID_ARGUMENT"
    assert SECRET not in envelope["message"]
    return str(envelope["message"])


def uids(found: list[Any], tag: str = "00080018") -> list[str]:
    return [model[tag]["Value"][0] for model in found]


def test_a_study_comes_with_its_attributes_counts_and_url(client: FlaskClient) -> None:
    (study,) = search(client, "/studies", PatientID="P1")
    assert list(study) == sorted(study)
    assert {tag: element.get("Value") for tag, element in study.items()} == {
        "00080005": ["ISO_IR 192"],
        "00080020": ["20240102"],
        "00080050": ["A1"],
        "00080061": ["XC"],
        "00080090": [{"Alphabetic": "Wolf^Ada"}],
        "00081190": [f"{BASE}/1.1"],
        "00100010": [{"Alphabetic": "Müller^José"}],
        "00100020": ["P1"],
        "0020000D": ["1.1"],
        "00201206": [2],
        "00201208": [3],
    }


def test_series_of_a_study_come_without_the_study_and_all_series_with_it(
    client: FlaskClient,
) -> None:
    within = search(client, "/studies/1.0/series")
    assert [series["00201209"]["Value"] for series in within] == [[1], [2]]
    assert within[1]["00081190"]["Value"] == [f"{BASE}/1.0/series/2.0.1"]
    assert "00100020" not in within[0]
    assert "0008103E" in within[0]
    everywhere = search(client, "/series")
    assert uids(everywhere, "0020000E") == ["2.0.0", "2.0.1", "2.1.0", "2.1.1"]
    assert everywhere[3]["00100020"]["Value"] == ["P1"]


def test_instances_are_found_everywhere_in_a_study_and_in_a_series(client: FlaskClient) -> None:
    assert len(search(client, "/instances")) == 6
    assert uids(search(client, "/studies/1.1/instances")) == ["3.3", "3.4", "3.5"]
    (first, second) = search(client, "/studies/1.1/series/2.1.1/instances")
    assert [first["00080018"]["Value"], second["00080018"]["Value"]] == [["3.4"], ["3.5"]]
    assert first["00081190"]["Value"] == [f"{BASE}/1.1/series/2.1.1/instances/3.4"]
    assert first["00280010"]["Value"] == [48]
    assert "00204000" not in first
    assert "7FE00010" not in first


def test_instances_come_with_the_counts_of_what_they_were_not_asked_for_within(
    client: FlaskClient,
) -> None:
    of_series, of_study = {"00201209": [2]}, {"00080061": ["XC"], "00201206": [2], "00201208": [3]}
    counted = of_series.keys() | of_study.keys()
    for path, expected in (
        ("/instances", of_series | of_study),
        ("/studies/1.1/instances", of_series),
        ("/studies/1.1/series/2.1.1/instances", {}),
    ):
        found = search(client, path, SOPInstanceUID="3.5")[0]
        assert {tag: found[tag]["Value"] for tag in counted & found.keys()} == expected
    asked = search(client, "/studies/1.1/instances", SOPInstanceUID="3.5", includefield="00080061")
    assert asked[0]["00080061"]["Value"] == ["XC"]


def test_all_instances_have_the_same_fields_however_they_are_asked_for(client: FlaskClient) -> None:
    # Without conditions they are put together of text.
    everything = search(client, "/instances")
    assert everything == search(client, "/instances", includefield="PatientID")
    assert [list(found) for found in everything] == [sorted(found) for found in everything]


@pytest.mark.parametrize(
    ("parameters", "studies"),
    [
        ({"StudyInstanceUID": "1.1"}, ["1.1"]),
        ({"0020000D": "1.1"}, ["1.1"]),
        ({"0020000d": "1.1,1.0"}, ["1.0", "1.1"]),
        ({"StudyInstanceUID": "1.1\\1.0"}, ["1.0", "1.1"]),
        ({"StudyDate": "20240101"}, ["1.0"]),
        ({"StudyDate": "20240102-"}, ["1.1"]),
        ({"StudyDate": "-20240101"}, ["1.0"]),
        ({"StudyDate": "20240101-20240102"}, ["1.0", "1.1"]),
        ({"PatientName": "Müller^José"}, ["1.0", "1.1"]),
        ({"PatientName": "mul"}, []),
        ({"PatientName": "MUL", "fuzzymatching": "true"}, ["1.0", "1.1"]),
        ({"PatientName": "ull", "fuzzymatching": "true"}, []),
        ({"PatientID": "P0", "StudyDate": "20240102"}, []),
        ({"PatientID": ""}, ["1.0", "1.1"]),
        ({"limit": "1"}, ["1.0"]),
        ({"limit": "1", "offset": "1"}, ["1.1"]),
        ({"limit": "0"}, []),
        ({"limit": "", "offset": ""}, ["1.0", "1.1"]),
        ({"offset": "1000000"}, []),
    ],
)
def test_studies_are_matched(
    client: FlaskClient, parameters: dict[str, str], studies: list[str]
) -> None:
    assert uids(search(client, "/studies", **parameters), "0020000D") == studies


@pytest.mark.parametrize("include", ["ImageComments", "00204000", "Rows,ImageComments", "all"])
def test_fields_can_be_included(client: FlaskClient, include: str) -> None:
    (instance,) = search(client, "/instances", SOPInstanceUID="3.4", includefield=include)
    assert instance["00204000"]["Value"] == ["close up"]


def test_all_fields_have_absolute_bulk_data_uris(client: FlaskClient) -> None:
    (instance,) = search(client, "/instances", SOPInstanceUID="3.4", includefield="all")
    uri = f"{BASE}/1.1/series/2.1.1/instances/3.4/bulkdata/7FE00010"
    assert instance["7FE00010"] == {"vr": "OB", "BulkDataURI": uri}


def test_fields_can_be_included_one_by_one(client: FlaskClient) -> None:
    response = client.get("/dicomWeb/instances?includefield=ImageComments&includefield=00280100")
    assert all("00204000" in instance for instance in response.get_json(force=True))


@pytest.mark.parametrize("path", ["/studies", "/series", "/instances", "/studies/9.9/series"])
def test_nothing_found_is_an_empty_array(client: FlaskClient, path: str) -> None:
    assert search(client, path, StudyInstanceUID="9.9") == []


@pytest.mark.parametrize(
    ("path", "parameters", "text"),
    [
        ("/studies", {"PatientName": f"{SECRET}*"}, "wildcard"),
        ("/studies", {"PatientID": f"{SECRET}?"}, "wildcard"),
        ("/studies", {SECRET: "x"}, "query parameter 1"),
        ("/studies", {"99999999": SECRET}, "query parameter 1"),
        ("/studies", {"limit": "1", "PatientSex": SECRET}, "PatientSex (query parameter 2)"),
        ("/studies", {"Modality": "XC"}, "can't match Modality"),
        ("/series", {"SOPInstanceUID": "1.2"}, "can't match SOPInstanceUID"),
        ("/studies", {"StudyInstanceUID": SECRET}, "UIDs (StudyInstanceUID)"),
        ("/studies", {"StudyInstanceUID": ",".join(["1.2"] * 501)}, "at most 500"),
        (
            "/studies",
            {"PatientName": " ".join(map(str, range(101))), "fuzzymatching": "true"},
            "100 words",
        ),
        ("/studies", {"StudyDate": "2024"}, "YYYYMMDD"),
        ("/studies", {"StudyDate": "-"}, "YYYYMMDD"),
        ("/studies", {"StudyDate": "\uff12\uff10\uff12\uff14\uff10\uff11\uff10\uff11"}, "YYYYMMDD"),
        ("/studies", {"includefield": SECRET}, "includefield, item 1"),
        ("/studies", {"fuzzymatching": "maybe"}, "fuzzymatching"),
        ("/studies", {"limit": "-1"}, "0 to 5000"),
        ("/studies", {"limit": "5001"}, "0 to 5000"),
        ("/studies", {"limit": "ten"}, "limit"),
        ("/instances", {"limit": "50001"}, "0 to 50000"),
        ("/instances", {"offset": "1000001"}, "offset"),
        ("/instances", {"offset": "1.5"}, "offset"),
        ("/studies/x/series", {}, "study of the path"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_the_reason(
    client: FlaskClient, path: str, parameters: dict[str, str], text: str
) -> None:
    assert text in refusal(client, path, **parameters)


def test_limits_have_the_defaults_of_the_healthcare_api(client: FlaskClient) -> None:
    assert len(search(client, "/instances", limit="50000")) == 6
    assert len(search(client, "/series", limit="5000", offset="3")) == 1


@pytest.mark.parametrize(
    "name",
    [
        *("$.xgafv", "alt", "$alt", "access_token", "callback", "fields", "key"),
        *("oauth_token", "prettyPrint", "quotaUser", "uploadType", "upload_protocol"),
    ],
)
def test_the_system_parameters_of_google_s_client_libraries_are_ignored(
    client: FlaskClient, name: str
) -> None:
    (study,) = search(client, "/studies", **{"PatientID": "P1", name: "x"})
    assert study["0020000D"]["Value"] == ["1.1"]


@pytest.mark.parametrize("path", ["/studies", "/studies/1.0/metadata"])
def test_the_default_accept_header_of_java_is_met(client: FlaskClient, path: str) -> None:
    java = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
    response = client.get(f"/dicomWeb{path}", headers={"Accept": java})
    assert (response.status_code, response.content_type) == (200, "application/dicom+json")


def test_results_can_be_had_as_xml(client: FlaskClient) -> None:
    accept = {"Accept": 'multipart/related; type="application/dicom+xml"'}
    response = client.get("/dicomWeb/studies", headers=accept)
    parts = multipart.decode(response.data, response.content_type)
    names = [
        element.get("keyword") for element in ET.parse(BytesIO(bytes(parts[0].body))).getroot()
    ]
    assert len(parts) == 2
    assert "PatientName" in names
    assert b"<FamilyName>M\xc3\xbcller</FamilyName>" in bytes(parts[0].body)
    nothing = client.get("/dicomWeb/studies?PatientID=nobody", headers=accept)
    assert (nothing.status_code, nothing.data) == (204, b"")


def test_a_form_that_cannot_be_had_is_not_acceptable(client: FlaskClient) -> None:
    response = client.get("/dicomWeb/studies", headers={"Accept": "application/dicom+xml"})
    assert response.status_code == 406
    assert response.get_json()["error"]["status"] == "NOT_ACCEPTABLE"


def test_a_very_long_accept_header_is_refused_unread(client: FlaskClient) -> None:
    response = client.get("/dicomWeb/studies", headers={"Accept": '"' * 2049})
    assert response.status_code == 406
    assert "longer than 2048" in response.get_json()["error"]["message"]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlaskClient]:
    """Serve one series of 1,101 instances, by rows alone."""
    archive = Archive(tmp_path_factory.mktemp("long"))
    with archive._index.writing() as connection:
        for number in range(1101):
            file = dicom_file(SOPInstanceUID=f"3.{number}", ImageComments='"0010\n"')
            description = describe(part10.decode(file))
            add(connection, description, Kept(1, "", "STANDARD"))
    yield create_app(archive).test_client()
    archive.close()


@pytest.mark.parametrize("include", ["", "ImageComments", "all"])
def test_a_long_answer_is_made_while_it_is_sent_and_is_the_same(
    long: FlaskClient, include: str
) -> None:
    parameters = {"includefield": include} if include else {}
    whole = search(long, "/instances", limit="2000", **parameters)
    assert uids(whole) == [f"3.{number}" for number in range(1101)]
    pages = [
        search(long, "/instances", limit="500", offset=str(offset), **parameters)
        for offset in (0, 500, 1000)
    ]
    assert list(chain.from_iterable(pages)) == whole
    assert all(list(model) == sorted(model) for model in whole)


def test_the_defaults_of_all_instances_are_those_that_are_chosen_one_by_one(
    client: FlaskClient,
) -> None:
    chosen = search(client, "/instances", includefield="00080018")
    assert search(client, "/instances") == chosen
    assert all("00081190" in model for model in chosen)


def test_the_metadata_of_a_long_series_is_made_while_it_is_sent(long: FlaskClient) -> None:
    response = long.get("/dicomWeb/studies/1.2.3/metadata")
    models = response.get_json(force=True)
    assert len(models) == 1101
    uri = models[1100]["7FE00010"]["BulkDataURI"]
    assert uri == f"{BASE}/1.2.3/series/1.2.3.4/instances/3.1100/bulkdata/7FE00010"
