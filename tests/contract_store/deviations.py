"""What a store does otherwise, row by row.

A row is checked as strictly as its test: the test has to fail, and by what the row has `seen` in
the text of the assertion. A store that does it after all makes the test fail, so that the row goes.
"""

from typing import NamedTuple


class Deviation(NamedTuple):
    """What the store does, and what the assertion says of it."""

    does: str
    seen: str


Rows = dict[tuple[str, str], Deviation]


def _rows(store: str, does: str, seen: str, *tests: str) -> Rows:
    """Return the same row for several tests, each with its parameters but without the store."""
    return {(store, test): Deviation(does, seen) for test in tests}


# Orthanc 1.10.1 with its DICOMweb plugin 1.7, as Debian 12 has them.
_ORTHANC: Rows = {
    # Store
    **_rows(
        "orthanc",
        "takes files as parts only",
        "assert 415 == 200",
        "test_a_file_is_stored_as_the_whole_body",
        "test_metadata_and_a_picture_become_an_instance",
    ),
    **_rows(
        "orthanc",
        "answers a store in JSON where nothing is asked for",
        "assert (200, 'applic",
        "test_the_answer_is_xml_where_nothing_else_is_asked_for",
    ),
    **_rows(
        "orthanc",
        'says "stored" of other content under the same UIDs, and keeps the first',
        "assert 200 == 409",
        "test_other_content_under_the_same_uids_is_refused_and_the_first_kept",
    ),
    **_rows(
        "orthanc",
        "refuses the whole request for one bad file, without a word of the others",
        "assert 400 == 409",
        "test_one_bad_file_leaves_the_others_stored_and_named",
    ),
    **_rows(
        "orthanc",
        "doesn't miss the closing boundary",
        "assert 200 == 400",
        "test_a_body_without_its_closing_boundary_stores_nothing",
    ),
    **_rows(
        "orthanc",
        "doesn't look at the Accept header of a store",
        "assert 200 == 406",
        "test_an_answer_that_there_is_not_stores_nothing[text/plain]",
        "test_an_answer_that_there_is_not_stores_nothing[application/dicom+json;q=0]",
    ),
    **_rows(
        "orthanc",
        "knows no storage classes, and says nothing of them",
        "assert 200 == 400",
        "test_a_storage_class_that_there_is_not_stores_nothing",
    ),
    # Search
    **_rows(
        "orthanc",
        "finds no study by a whole name, only by a pattern",
        "assert set() == {",
        "test_a_study_is_found_by_each_key[PatientName]",
        "test_a_study_is_found_by_each_key[ReferringPhysicianName]",
        "test_the_series_of_a_study_are_found_by_the_study_s_keys[PatientName]",
        "test_the_series_of_a_study_are_found_by_the_study_s_keys[ReferringPhysicianName]",
        "test_instances_are_found_by_the_study_s_keys[PatientName]",
        "test_instances_are_found_by_the_study_s_keys[ReferringPhysicianName]",
    ),
    **_rows(
        "orthanc",
        "finds no study by a whole name, only by a pattern",
        "assert [] == [",
        "test_a_name_is_found_in_any_script",
    ),
    **_rows(
        "orthanc",
        "doesn't know fuzzymatching",
        "assert [] == [",
        "test_a_fuzzy_name_is_the_beginning_of_one_of_its_words[small]",
        "test_a_fuzzy_name_is_the_beginning_of_one_of_its_words[capital]",
        "test_a_fuzzy_name_is_the_beginning_of_one_of_its_words[cut]",
    ),
    **_rows(
        "orthanc",
        "matches wildcards",
        "assert 200 == 400",
        "test_wildcards_are_refused[*]",
        "test_wildcards_are_refused[?]",
    ),
    **_rows(
        "orthanc",
        "fails at a negative number",
        "assert 500 == 400",
        "test_a_query_that_can_not_be_understood_is_refused[limit=-1]",
        "test_a_query_that_can_not_be_understood_is_refused[offset=-1]",
    ),
    **_rows(
        "orthanc",
        "has no maxima, and passes over what it doesn't know",
        "assert 200 == 400",
        "test_an_attribute_that_is_not_searchable_is_refused",
        "test_a_query_that_can_not_be_understood_is_refused[limit=999999]",
        "test_a_query_that_can_not_be_understood_is_refused[offset=1000001]",
        "test_a_query_that_can_not_be_understood_is_refused[includefield=Nonsense]",
        "test_a_query_that_can_not_be_understood_is_refused[Nonsense=1]",
        "test_a_query_that_can_not_be_understood_is_refused[StudyDate=yesterday]",
    ),
    **_rows(
        "orthanc",
        "gives not all attributes for includefield=all",
        " <= {'",
        "test_all_fields_are_those_of_the_metadata",
    ),
    **_rows(
        "orthanc",
        "answers in JSON where XML is asked for",
        "assert (200, 'applic",
        "test_results_are_xml_for_who_wants_them",
    ),
    **_rows(
        "orthanc",
        "answers in JSON whatever is asked for",
        "assert 200 == 406",
        "test_results_in_another_form_are_not_acceptable[text/csv]",
        "test_results_in_another_form_are_not_acceptable[application/dicom+json;q=0]",
    ),
    # Retrieve
    **_rows(
        "orthanc",
        "gives files as parts only",
        "assert (400, '') == (200, 'application/dicom')",
        "test_an_instance_comes_as_the_very_file",
    ),
    **_rows(
        "orthanc",
        "gives files as parts only",
        "assert 400 == 200",
        "test_an_instance_is_decoded_unless_told_otherwise[application/dicom]",
        "test_an_instance_is_decoded_unless_told_otherwise"
        "[application/dicom; transfer-syntax=1.2.840.10008.1.2.1]",
    ),
    **_rows(
        "orthanc",
        "pulls the picture out of shape to fill the viewport",
        "assert (32, 32, 3) == (24, 32, 3)",
        "test_a_rendered_picture_fits_into_the_viewport",
    ),
    **_rows(
        "orthanc",
        "wants a transfer syntax named for a frame as a JPEG",
        "assert (400, '') ==",
        "test_a_frame_comes_as_it_is_stored[image/jpeg-*]",
    ),
    **_rows(
        "orthanc",
        "calls a frame image/jpeg that was asked for as application/octet-stream",
        "assert 'image/jpeg' == 'application/octet-stream'",
        "test_a_frame_comes_as_it_is_stored[application/octet-stream-*]",
    ),
    **_rows(
        "orthanc",
        "calls a frame beyond the last one a bad request",
        "assert 400 == 404",
        "test_a_frame_that_there_is_not_is_refused[2-404]",
    ),
    **_rows(
        "orthanc",
        "has bulk data at addresses of its own",
        "assert (404, '') ==",
        "test_bulk_data_is_found_at_its_tag",
    ),
    **_rows(
        "orthanc",
        "has bulk data at addresses of its own",
        "assert 404 == 200",
        "test_nested_bulk_data_is_found_by_the_index_of_its_item[0]",
        "test_nested_bulk_data_is_found_by_the_index_of_its_item[1]",
    ),
    **_rows(
        "orthanc",
        "doesn't look whether a UID is one",
        "assert 404 == 400",
        "test_a_uid_that_is_none_is_a_bad_request[/studies/{}]",
        "test_a_uid_that_is_none_is_a_bad_request[/studies/{}/metadata]",
    ),
    **_rows(
        "orthanc",
        "doesn't look whether a UID is one",
        "assert 200 == 400",
        "test_a_uid_that_is_none_is_a_bad_request[/studies/{}/series]",
    ),
    **_rows(
        "orthanc",
        "calls an Accept header that it can't meet a bad request",
        "assert 400 == 406",
        "test_a_form_that_can_not_be_had_is_not_acceptable[-text/plain]",
        "test_a_form_that_can_not_be_had_is_not_acceptable[/metadata-text/plain]",
        "test_a_form_that_can_not_be_had_is_not_acceptable[/rendered-text/plain]",
        "test_a_form_that_can_not_be_had_is_not_acceptable[/frames/1-video/mp4]",
        "test_a_form_that_can_not_be_had_is_not_acceptable"
        "[-application/dicom; transfer-syntax=1.2.840.10008.1.2.4.80]",
    ),
    # Delete, which only its own API has
    **_rows(
        "orthanc",
        "has no delete over DICOMweb",
        "assert 405 == ",
        "test_an_instance_is_deleted_and_gone",
        "test_a_study_or_series_is_deleted_by_an_operation[study]",
        "test_a_study_or_series_is_deleted_by_an_operation[series]",
        "test_what_is_deleted_can_be_stored_again",
        "test_what_is_not_there_can_not_be_deleted[study]",
        "test_what_is_not_there_can_not_be_deleted[series]",
        "test_what_is_not_there_can_not_be_deleted[path]",
        "test_what_is_no_uid_can_not_be_deleted",
    ),
}

# By store, and the test's name with its parameters but without the store.
DEVIATIONS: Rows = _ORTHANC
