"""The rows of deviations are about tests that there are."""

from tests.contract_store.deviations import DEVIATIONS


def test_every_row_of_deviations_is_about_a_test(cases: set[tuple[str, str]]) -> None:
    stores = {name for name, _ in cases}
    rows = {row for row in DEVIATIONS if row[0] in stores}
    assert rows - cases == set()
