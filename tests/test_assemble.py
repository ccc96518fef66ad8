"""Settings to objects: the secret of the UIDs is kept whole or not used."""

import re
from pathlib import Path

import pytest

from service import assemble, settings
from service.errors import BadSettings


def test_the_uid_namespace_is_made_once_and_kept(tmp_path: Path) -> None:
    current = settings.load({"DATA_DIR": str(tmp_path)})
    first = assemble.rules(current)
    assert len((tmp_path / "uid-namespace").read_text()) == 65
    assert assemble.rules(current).namespace == first.namespace


@pytest.mark.parametrize("text", ["", "\n", "0" * 31 + "\n"], ids=["empty", "a line", "cut"])
def test_a_uid_namespace_that_was_cut_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "uid-namespace"
    path.write_text(text)
    with pytest.raises(BadSettings, match=re.escape(str(path))) as caught:
        assemble.rules(settings.load({"DATA_DIR": str(tmp_path)}))
    assert "put it back from a backup" in str(caught.value)
    assert text.strip() == "" or text.strip() not in str(caught.value)
    assert path.read_text() == text
