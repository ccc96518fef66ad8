"""Nothing that a picture says beside itself reaches the instance."""

import json
import struct
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import generate_frames

from tests.decoding import furthest, sound
from tests.describing import CAPTURE, described, dicom_file
from tests.jpegs import GPS_IFD, make_jpeg
from tests.judges import require_tool
from tests.streams import behind_soi, segment, take_apart, without

OWNER, ARTIST, COMMENT, NOTE = "Dulcinea", "Sancho", "Rocinante", "Barataria"
DESCRIPTION, CREATOR, FAR_CREATOR, BYLINE = "Micomicona", "Clavileno", "Altisidora", "Montesinos"
SECRETS = [OWNER, ARTIST, COMMENT, NOTE, DESCRIPTION, CREATOR, FAR_CREATOR, BYLINE]
TRACES = [b"Exif", b"http", b"xmp", b"Photoshop", b"8BIM", b"JFIF", b"JFXX", b"MPF", b"c2pa"]
TRACES += [b"jumb", b"ftyp", b"mdat", b"Zebedee", b"Tobosa", b"Lagado", b"ICC_PROFILE"]
THUMBNAIL = make_jpeg(64, 48, seed=9)
XMP = f"""http://ns.adobe.com/xap/1.0/\0<x:xmpmeta xmlns:x="adobe:ns:meta/">
<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:CreatorTool="{CREATOR}"/>
</rdf:RDF></x:xmpmeta>""".encode()
EXTENDED = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", 40, 0)
JUMBF = b"JP\0\1\0\0\0\1" + struct.pack(">I4s", 60, b"jumb") + b"c2pa claim of Lagado" + bytes(32)
IPTC = b"Photoshop 3.0\0008BIM\x04\x04\0\0" + struct.pack(">I", 15) + b"\x1c\x02\x50\0\x0a"
MPF = b"MPF\0MM\0*\0\0\0\x08" + bytes(40)
FILM = struct.pack(">I4s4s", 24, b"ftyp", b"mp42") + bytes(12) + b"\0\0\0\x40mdatTobosa" + bytes(50)


def exif() -> bytes:
    """Return an Exif block with everything private that a camera writes, and a thumbnail."""
    tags = Image.Exif()
    tags[0x010E], tags[0x013B], tags[0x9C9D] = DESCRIPTION, ARTIST, NOTE.encode("utf-16-le")
    tags[0x010F], tags[0x0110] = "Aleph", "A-1"
    tags[0x0112] = 6
    photo = tags.get_ifd(0x8769)
    photo[0xA430], photo[0x9286] = OWNER, b"ASCII\0\0\0" + COMMENT.encode()
    photo[0x927C] = NOTE.encode() * 20
    tags.get_ifd(GPS_IFD).update({1: "N", 2: (51.0, 28.0, 40.0), 3: "W", 4: (0.0, 0.0, 5.0)})
    return tags.tobytes() + THUMBNAIL


def leaky(**options: Any) -> bytes:
    """Return a picture with each kind of thing that has been found in one."""
    plain = make_jpeg(96, 64, icc=True, **options)
    jpeg = behind_soi(
        without(plain, 0xE0),
        segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0"),
        segment(0xE0, b"JFXX\0\x10" + THUMBNAIL),
        segment(0xE1, exif()),
        segment(0xE1, XMP),
        segment(0xE1, EXTENDED + FAR_CREATOR.encode()),
        segment(0xE2, MPF),
        segment(0xE3, b"Meta\0Zebedee"),
        segment(0xEB, JUMBF),
        segment(0xED, IPTC + BYLINE.encode()),
        segment(0xFE, COMMENT.encode()),
    )
    return jpeg + THUMBNAIL + FILM


KINDS = {
    "baseline": leaky(),
    "progressive": leaky(progressive=True),
    "grey": leaky(mode="L"),
    "RGB": leaky(keep_rgb=True),
}


@pytest.fixture(params=KINDS)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "a.dcm"
    path.write_bytes(dicom_file(described(KINDS[request.param])))
    return path


def frame_of(file: Path) -> bytes:
    return next(generate_frames(dcmread(file).PixelData, number_of_frames=1))


def test_what_was_planted_is_there_to_be_found() -> None:
    for kind, data in KINDS.items():
        for secret in SECRETS:
            forms = secret.encode(), secret.encode("utf-16-le")
            assert any(form in data for form in forms), (kind, secret)
        assert THUMBNAIL[20:] in data
        assert [trace for trace in TRACES if trace not in data] == []


def test_none_of_it_is_in_the_bytes_of_the_instance(file: Path) -> None:
    data = file.read_bytes()
    assert [secret for secret in SECRETS if secret.encode() in data] == []
    assert [secret for secret in SECRETS if secret.encode("utf-16-le") in data] == []
    assert THUMBNAIL[40:80] not in data
    frame = frame_of(file)
    assert [trace for trace in TRACES if trace in frame] == []


def test_a_frame_holds_nothing_but_the_picture(file: Path) -> None:
    frame = frame_of(file).rstrip(b"\0")
    allowed = {0xC0, 0xC4, 0xDA, 0xDB, 0xDD}
    adobe = [piece for piece in take_apart(frame) if piece.marker == 0xEE]
    assert {piece.marker for piece in take_apart(frame)} - {0xEE} <= allowed
    assert [piece.payload for piece in adobe] in ([], [b"Adobe\0\x64\0\0\0\0\0"])


def test_exiftool_finds_no_metadata_in_a_frame(file: Path, tmp_path: Path) -> None:
    (tmp_path / "frame.jpg").write_bytes(frame_of(file))
    command = [require_tool("exiftool"), "-json", "-G0", "-a", "-ee", str(tmp_path / "frame.jpg")]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    groups = {name.partition(":")[0] for name in found}
    # The APP14 group is Adobe's segment, which tells decoders that RGB is RGB.
    assert groups <= {"SourceFile", "ExifTool", "File", "Composite", "APP14"}
    composite = {name for name in found if name.startswith("Composite:")}
    assert composite == {"Composite:ImageSize", "Composite:Megapixels"}
    assert "ExifTool:Warning" not in found


def test_exiftool_would_have_found_it(tmp_path: Path) -> None:
    (tmp_path / "leaky.jpg").write_bytes(KINDS["baseline"])
    command = [require_tool("exiftool"), "-json", "-G0", "-a", str(tmp_path / "leaky.jpg")]
    (found,) = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    groups = {name.partition(":")[0] for name in found}
    assert groups >= {"EXIF", "XMP", "JFIF", "IPTC", "ICC_Profile"}


@pytest.mark.parametrize("kind", KINDS)
def test_each_thing_removed_is_named(kind: str) -> None:
    changes = described(KINDS[kind]).changes
    for name in (
        "JFIF", "JFIF thumbnail", "Exif", "XMP", "multi-picture index", "ICC profile", "APP3",
        "JUMBF (C2PA)", "IPTC (Photoshop)", "comment", "what stood behind EOI",
    ):  # fmt: skip
        assert any(change.startswith(f"removed {name} (") for change in changes), name


def test_the_pixels_are_those_of_the_picture_without_its_secrets() -> None:
    data = leaky(subsampling="4:4:4")
    plain = behind_soi(make_jpeg(96, 64, subsampling="4:4:4"))
    made = described(data, CAPTURE).instance
    shown = sound(bytes(made.codestream), "-dct", "float")
    wanted = sound(plain, "-dct", "float").swapaxes(0, 1)[:, ::-1]
    assert furthest(shown, wanted) <= 2


@pytest.mark.parametrize(
    "marker", [*range(0xE0, 0xF0), 0xFE, *range(0xF0, 0xF7), *range(0xF9, 0xFE)]
)
def test_no_segment_of_an_application_survives(marker: int) -> None:
    data = behind_soi(make_jpeg(24, 16), segment(marker, b"Zebedee"))
    made = described(data)
    assert b"Zebedee" not in dicom_file(made)
    assert len(made.changes) == 2


def test_a_picture_encoded_again_has_no_metadata_either() -> None:
    photo = BytesIO()
    with Image.open(BytesIO(make_jpeg(93, 61))) as image:
        image.save(photo, "JPEG", exif=exif(), comment=COMMENT)
    made = described(photo.getvalue())
    assert made.instance.dataset.DerivationDescription
    data = dicom_file(made)
    assert [secret for secret in SECRETS if secret.encode() in data] == []
    assert {p.marker for p in take_apart(bytes(made.instance.codestream))} <= {
        0xC0, 0xC4, 0xDA, 0xDB,
    }  # fmt: skip
