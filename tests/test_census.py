"""What would become of a folder: as a table, as JSON, and as pictures to look through."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO, StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from service import census
from service.census import Found
from service.cli import main
from tests.describing import PHOTOGRAPH, SAID, described, rules
from tests.jpegs import make_jpeg
from tests.streams import SOI

WHOLE = make_jpeg(64, 48)
FILES = {
    "a wrapped one.jpg": WHOLE,
    "another.JPEG": make_jpeg(32, 16, "L"),
    "kept/progressive.jpg": make_jpeg(64, 48, progressive=True),
    "kept/turned.jpg": make_jpeg(64, 48, orientation=6),
    "odd.jpg": make_jpeg(61, 47, orientation=6),
    "no end.jpg": WHOLE[:-2],
    "two starts.jpg": SOI + WHOLE,
    "cut.jpg": WHOLE[:-200],
    "<b>cmyk & co.jpg": make_jpeg(64, 48, "CMYK"),
    "png.jpg": b"\x89PNG\r\n\x1a\n",
    "png too.jpg": b"\x89PNG\r\n\x1a\n1",
    "notes.txt": b"no picture",
}
TABLE = """\
      2  wrapped
      2  transformed losslessly
      2  repaired
      1  re-encoded
      2  refused: not-a-jpeg-png
      1  refused: cmyk
      1  refused: damaged-scan
     11  in all
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("census")
    for name, data in FILES.items():
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(data)
    return path


def run(*arguments: str, **environment: str) -> Result:
    given = {"UID_NAMESPACE": "tests"} | environment
    return CliRunner().invoke(main, ["census", *arguments], env=given, catch_exceptions=False)


def test_the_table_counts_what_became_of_each(folder: Path) -> None:
    done = run(str(folder))
    assert done.exit_code == 0
    assert sorted(done.stdout.splitlines()) == sorted(TABLE.splitlines())
    outcomes = [line.split(maxsplit=1)[1].partition(":")[0] for line in done.stdout.splitlines()]
    assert list(dict.fromkeys(outcomes)) == [
        "wrapped", "transformed losslessly", "repaired", "re-encoded", "refused", "in all",
    ]  # fmt: skip


def test_the_policies_count(folder: Path) -> None:
    assert "2  re-encoded" in run(str(folder), CMYK="convert").stdout
    assert "refused: rotated" in run(str(folder), UPRIGHT="refuse").stdout


def test_json_tells_of_each_file(folder: Path) -> None:
    found = {Path(one["path"]).name: one for one in json.loads(run(str(folder), "--json").stdout)}
    assert len(found) == 11
    turned = found["turned.jpg"]
    assert turned["outcome"] == "transformed losslessly"
    assert (turned["rows"], turned["columns"]) == (64, 48)
    assert turned["transfer_syntax"] == "1.2.840.10008.1.2.4.50"
    assert "turned a quarter clockwise without loss" in turned["normalised"]
    assert found["no end.jpg"]["normalised"][0] == "added the missing EOI"
    assert found["cut.jpg"]["reason"] == "damaged-scan"
    assert "rows" not in found["cut.jpg"]


def test_an_attribute_that_is_wrong_is_a_reason_as_well(folder: Path) -> None:
    done = run(str(folder), "--set", "PatientSex=X", "--json")
    assert {one["reason"] for one in json.loads(done.stdout)} == {"bad-attribute"}
    eye = run(str(folder), "--template", "ophthalmic-photography-8-bit-image")
    assert "refused: missing-attribute" in eye.stdout


class _Page(HTMLParser):
    """The pictures and the texts of a page, and all that it would fetch from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.texts: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.sources += [value or "" for name, value in attrs if name in {"src", "href"}]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_contact_sheet_shows_each_picture_as_it_came_and_as_it_is_stored(
    folder: Path, tmp_path: Path
) -> None:
    sheet = tmp_path / "sheet.html"
    done = run(str(folder), "--html", str(sheet))
    assert "11  in all" in done.stdout
    page = _Page()
    page.feed(sheet.read_text())
    assert page.tags.count("article") == 11
    assert page.tags.count("b") == 0  # a file's name is no markup
    assert any("<b>cmyk & co.jpg" in text for text in page.texts)
    assert all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    # 7 as they are stored; as they came these, without the two repaired ones, and CMYK.
    assert len(page.sources) == 7 + 5 + 1
    shapes = [Image.open(BytesIO(base64.b64decode(s.partition(",")[2]))).size for s in page.sources]
    assert (64, 48) in shapes
    assert (48, 64) in shapes


def test_a_card_shows_the_picture_lying_and_standing() -> None:
    """A viewer of the file's own pixels sees them lie; the stored ones stand."""
    jpeg = make_jpeg(64, 48, orientation=6)
    before, after = (
        Image.open(BytesIO(census._thumbnail(data)))
        for data in (jpeg, bytes(described(jpeg).instance.codestream))
    )
    assert (before.size, after.size) == ((64, 48), (48, 64))
    assert before.getexif() == {}


def test_what_can_not_be_shown_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"\x89PNG\r\n\x1a\n")
    page = StringIO()
    looked = census.look([tmp_path / "a.jpg"], rules(), SAID, PHOTOGRAPH)
    (found,) = census.write_sheet(page, looked)
    assert found.outcome == "refused"
    assert "can't be shown here" in page.getvalue()


def test_a_folder_is_looked_at_file_by_file(folder: Path) -> None:
    """Whoever has a hundred thousand pictures needs the memory of one."""
    looked = census.look(sorted(folder.glob("*.jpg")), rules(), SAID, PHOTOGRAPH)
    first, _ = next(looked)
    assert isinstance(first, Found)
    assert iter(looked) is looked


def test_nothing_is_stored_and_nothing_is_written(folder: Path, tmp_path: Path) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    run(str(folder), DATA_DIR=str(tmp_path / "data"))
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_pictures_says_so(tmp_path: Path) -> None:
    done = run(str(tmp_path))
    assert done.exit_code == 2
    assert re.search("no JPEG or DICOM file", done.output)
