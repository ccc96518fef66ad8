"""Settings to objects: the secret of the UIDs is kept whole or not used."""

import re
from pathlib import Path

import pytest

from service import assemble, settings
from service.archive import Archive
from service.errors import BadSettings
from tests.flushing import flushed


def test_the_uid_namespace_is_made_once_and_kept(tmp_path: Path) -> None:
    current = settings.load({"DATA_DIR": str(tmp_path)})
    first = assemble.rules(current)
    assert len((tmp_path / "uid-namespace").read_text()) == 65
    assert assemble.rules(current).namespace == first.namespace


def test_a_secret_a_queue_and_an_archive_are_there_after_a_loss_of_power(tmp_path: Path) -> None:
    """Their folders too, which are new: a name that isn't flushed may be gone, and all below it."""
    data = tmp_path / "data"
    current = settings.load({"DATA_DIR": str(data)})
    assert {data, tmp_path} <= set(flushed(lambda: assemble.rules(current)))
    queue = flushed(lambda: assemble.retry_queue(current).close())
    assert {data / "queue", data, tmp_path} <= set(queue)
    archive = flushed(lambda: Archive(data / "archive").close())
    assert {data / "archive", data, tmp_path} <= set(archive)


@pytest.mark.parametrize("text", ["", "\n", "0" * 31 + "\n"], ids=["empty", "a line", "cut"])
def test_a_uid_namespace_that_was_cut_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "uid-namespace"
    path.write_text(text)
    with pytest.raises(BadSettings, match=re.escape(str(path))) as caught:
        assemble.rules(settings.load({"DATA_DIR": str(tmp_path)}))
    assert "put it back from a backup" in str(caught.value)
    assert text.strip() == "" or text.strip() not in str(caught.value)
    assert path.read_text() == text
