"""The whole line over a folder, without storing: what would become of each picture."""

import base64
import html
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Final

from service.dicom.dataset import Instance
from service.errors import JpegstowError
from service.ingest import Rules, describe_upload
from service.sending import upload_of

WRAPPED: Final = "wrapped"
TRANSFORMED: Final = "transformed losslessly"
REENCODED: Final = "re-encoded"
REPAIRED: Final = "repaired"
REFUSED: Final = "refused"

_REPAIRS = ("added the missing", "added the standard", "removed a second", "took the number")
_TRANSFORMS = ("recoded ", "turned ", "mirrored ")


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one file; `reason` and `detail` tell of a refusal."""

    path: str
    outcome: str
    transfer_syntax: str = ""
    photometric_interpretation: str = ""
    rows: int = 0
    columns: int = 0
    normalised: tuple[str, ...] = ()
    reason: str = ""
    detail: str = ""


def look(
    paths: Iterable[Path], rules: Rules, said: Mapping[str, Any], template: str
) -> Iterator[tuple[Found, Instance | None]]:
    """Describe each file; yield what it is, and the instance if there is one."""
    for path in paths:
        try:
            described = describe_upload(upload_of(path.read_bytes(), said, template), rules)
        except JpegstowError as error:
            yield Found(str(path), REFUSED, reason=error.reason, detail=str(error)), None
            continue
        instance = described.instance
        yield (
            Found(
                str(path),
                _outcome(instance, described.changes),
                instance.transfer_syntax,
                instance.dataset.PhotometricInterpretation,
                instance.dataset.Rows,
                instance.dataset.Columns,
                described.changes,
            ),
            instance,
        )


def _outcome(instance: Instance, changes: Sequence[str]) -> str:
    if "DerivationDescription" in instance.dataset:
        return REENCODED
    if any(change.startswith(_REPAIRS) or "in front of SOI" in change for change in changes):
        return REPAIRED
    if any(change.startswith(_TRANSFORMS) for change in changes):
        return TRANSFORMED
    return WRAPPED


def as_json(found: Found) -> dict[str, Any]:
    """Return a finding without its empty values."""
    return {name: value for name, value in asdict(found).items() if value}


def table(findings: Iterable[Found]) -> str:
    """Return how many files came to what, refusals by reason."""
    counts = Counter((found.outcome, found.reason) for found in findings)
    order = [WRAPPED, TRANSFORMED, REPAIRED, REENCODED, REFUSED]
    rows = sorted(counts.items(), key=lambda row: (order.index(row[0][0]), -row[1]))
    lines = [f"{n:7}  {outcome}{': ' + why if why else ''}" for (outcome, why), n in rows]
    return "\n".join([*lines, f"{counts.total():7}  in all"])


_THUMBNAIL = (480, 480)
_HEAD = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>jpegstow census</title>
<style>
 body { font: 15px/1.4 system-ui, sans-serif; margin: 1.5rem; color-scheme: light dark }
 main { display: grid; grid-template-columns: repeat(auto-fill, minmax(26rem, 1fr)); gap: 1rem }
 article { border: 1px solid #8886; border-radius: .4rem; padding: .7rem }
 h2 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere }
 div { display: grid; grid-template-columns: 1fr 1fr; gap: .5rem }
 figure { margin: 0 } img { width: 100%; height: 12rem; object-fit: contain; background: #8882 }
 figcaption, p, li { font-size: .85rem }
 p, ul { margin: .4rem 0 0; padding-left: 0 } ul { padding-left: 1.1rem } .refused { color: #c33 }
</style>
<h1>What a viewer will show</h1>
<p>Left the file as it came, without its EXIF orientation; right the stored instance.</p>
"""


def write_sheet(file: IO[str], looked: Iterable[tuple[Found, Instance | None]]) -> list[Found]:
    """Write a contact sheet, one HTML page that needs nothing beside it; return the findings."""
    findings = []
    file.write(_HEAD + "<main>\n")
    for found, instance in looked:
        file.write(_card(found, instance))
        findings.append(found)
    file.write(f"</main>\n<pre>{html.escape(table(findings))}</pre>\n</html>\n")
    return findings


def _card(found: Found, instance: Instance | None) -> str:
    original = Path(found.path).read_bytes()
    pictures = _figure("as it came", original)
    if instance:
        pictures += _figure(f"stored, {found.columns} x {found.rows}", bytes(instance.codestream))
    notes = "".join(f"<li>{html.escape(change)}</li>" for change in found.normalised)
    outcome = html.escape(f"{found.outcome}: {found.detail}" if found.detail else found.outcome)
    kind = "refused" if found.outcome == REFUSED else "taken"
    name = html.escape(Path(found.path).name)
    return (
        f"<article><h2>{name}</h2><div>{pictures}</div>"
        f'<p class="{kind}">{outcome}</p><ul>{notes}</ul></article>\n'
    )


def _figure(caption: str, jpeg: bytes) -> str:
    picture = _thumbnail(jpeg)
    if not picture:
        return f"<figure><figcaption>{caption}: can't be shown here</figcaption></figure>"
    data = base64.b64encode(picture).decode("ascii")
    return (
        f'<figure><img alt="{caption}" loading="lazy" src="data:image/jpeg;base64,{data}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _thumbnail(jpeg: bytes) -> bytes:
    """Return a small JPEG of the pixels as they are coded; nothing where they can't be decoded."""
    from PIL import Image  # noqa: PLC0415 - only here

    small = BytesIO()
    try:
        # Of all formats that Pillow would try, some run other programs.
        with Image.open(BytesIO(jpeg), formats=("JPEG", "JPEG2000")) as image:
            image.draft(image.mode, _THUMBNAIL)
            image.thumbnail(_THUMBNAIL)
            image.convert("RGB").save(small, "JPEG", quality=85)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return b""
    return small.getvalue()
