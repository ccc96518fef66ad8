"""Coefficients are moved and never changed, and damaged scans are found."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import pytest
import requests
from PIL import Image

from service import processes, settings
from service.dicom import jpegtran
from service.dicom.jpegtran import NoLibrary, NotPerfect
from service.errors import DamagedJpeg
from tests.coefficients import Blocks, coefficients, quantization, turned
from tests.decoding import djpeg, furthest, sound, upright
from tests.decoding import jpegtran as jpegtran_program
from tests.describing import normalised
from tests.jpegs import make_jpeg
from tests.peers import BOUND, free_port, wait_for_http
from tests.streams import (
    behind_soi,
    frame,
    put_together,
    relabelled,
    scan,
    segment,
    stream,
    take_apart,
)

SAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
MCU = {"4:4:4": (8, 8), "4:2:2": (16, 8), "4:2:0": (16, 16), "4:4:0": (8, 16), "grey": (8, 8)}
# Which of columns and rows must be whole MCUs, for each orientation's way up.
WHOLE = {1: "", 2: "c", 3: "cr", 4: "r", 5: "", 6: "r", 7: "cr", 8: "c"}


def same(one: Sequence[Blocks], other: Sequence[Blocks]) -> bool:
    return len(one) == len(other) and all(map(np.array_equal, one, other))


def test_the_reader_of_coefficients_reads_what_djpeg_decodes() -> None:
    """The judge is judged: its coefficients, put through an inverse DCT, are the picture."""
    data = make_jpeg(48, 32, "L", quality=90, progressive=True)
    (blocks,), (table,) = coefficients(data), quantization(data)
    k = np.arange(8)
    basis = np.cos((2 * k[:, None] + 1) * k * np.pi / 16) * np.where(k == 0, 0.125**0.5, 0.5)
    samples = basis @ (blocks * np.array(table).reshape(8, 8)) @ basis.T + 128
    picture = samples.transpose(0, 2, 1, 3).reshape(32, 48).round().clip(0, 255)
    assert furthest(picture.astype(np.int32), sound(data, "-dct", "float")) <= 1


@pytest.mark.parametrize("restart_blocks", [0, 3])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_progressive_becomes_baseline_with_the_same_coefficients(
    sampling: str, restart_blocks: int
) -> None:
    data = make_jpeg(99, 61, subsampling=sampling, progressive=True, restart_blocks=restart_blocks)
    made = bytes(normalised(data).codestream)
    assert [p.marker for p in take_apart(made) if 0xC0 <= p.marker < 0xC4] == [0xC0]
    assert same(coefficients(made), coefficients(data))
    assert quantization(made) == quantization(data)
    assert furthest(sound(made), sound(data)) == 0


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_progressive_grey_and_rgb_become_baseline(mode: str) -> None:
    data = make_jpeg(99, 61, mode, keep_rgb=True, progressive=True)
    made = bytes(normalised(data).codestream)
    assert same(coefficients(made), coefficients(data))
    assert furthest(sound(made), sound(data)) == 0


@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("progressive", [(), ("-progressive",)])
def test_arithmetic_coding_becomes_what_was_coded(
    sampling: str, progressive: tuple[str, ...]
) -> None:
    """The reader knows Huffman only; what libjpeg-turbo coded arithmetically, it made of this."""
    data = make_jpeg(99, 61, subsampling=sampling)
    arithmetic = jpegtran_program(data, "-arithmetic", *progressive)
    process = {p.marker for p in take_apart(arithmetic)} & {0xC9, 0xCA}
    assert process == {0xCA if progressive else 0xC9}
    found = normalised(arithmetic)
    assert same(coefficients(bytes(found.codestream)), coefficients(data))
    assert any(change.startswith("recoded arithmetic") for change in found.changes)


def test_extended_sequential_is_baseline_byte_for_byte() -> None:
    data = make_jpeg(99, 61)
    assert normalised(relabelled(data, 0xC1)).codestream == normalised(data).codestream


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_a_turn_moves_coefficients_and_changes_no_value(sampling: str, orientation: int) -> None:
    data = picture(sampling, (48, 80))
    made = jpegtran.transform(data, jpegtran.UPRIGHT[orientation])
    wanted = [turned(blocks, orientation) for blocks in coefficients(data)]
    assert same(coefficients(made), wanted)
    assert sorted(quantization(made)) == sorted(map(transposed(orientation), quantization(data)))
    exact = sound(made, "-dct", "float", "-nosmooth")
    assert furthest(exact, upright(sound(data, "-dct", "float", "-nosmooth"), orientation)) <= 1


def transposed(orientation: int) -> Callable[[tuple[int, ...]], tuple[int, ...]]:
    def table(values: tuple[int, ...]) -> tuple[int, ...]:
        square = np.array(values).reshape(8, 8)
        return tuple(map(int, (square.T if orientation >= 5 else square).flat))

    return table


def picture(sampling: str, size: tuple[int, int]) -> bytes:
    return make_jpeg(*size, "L") if sampling == "grey" else make_jpeg(*size, subsampling=sampling)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_a_turn_is_perfect_where_the_edges_that_move_are_whole_blocks(
    sampling: str, orientation: int
) -> None:
    across, down = MCU[sampling]
    for columns, rows in ((64, 64), (63, 64), (64, 63), (63, 63), (56, 64), (64, 56)):
        whole = {"c": columns % across == 0, "r": rows % down == 0}
        data = picture(sampling, (columns, rows))
        if all(whole[edge] for edge in WHOLE[orientation]):
            assert jpegtran.transform(data, jpegtran.UPRIGHT[orientation])
        else:
            with pytest.raises(NotPerfect):
                jpegtran.transform(data, jpegtran.UPRIGHT[orientation])


def test_a_picture_encoded_again_is_grey_or_without_subsampling() -> None:
    for pixel_format, samplings in ((jpegtran.GREY, [0x11]), (jpegtran.RGB, [0x11] * 3)):
        pixels = jpegtran.decode(make_jpeg(31, 17), 31, 17, pixel_format)
        made = jpegtran.encode(pixels, 98)
        (frame,) = [p.payload for p in take_apart(made) if p.marker == 0xC0]
        assert list(frame[7::3]) == samplings
        assert (frame[3:5], frame[1:3]) == (b"\0\x1f", b"\0\x11")


def test_decoding_is_djpegs() -> None:
    data = make_jpeg(31, 17)
    pixels = jpegtran.decode(data, 31, 17)
    ours = np.frombuffer(pixels.data, np.uint8).reshape(17, 31, 3).astype(np.int32)
    assert furthest(ours, sound(data)) == 0


GOOD = {
    "grey": make_jpeg(97, 61, "L"),
    "4:2:0": make_jpeg(97, 61),
    "restarts": make_jpeg(97, 61, restart_blocks=2),
    "progressive": make_jpeg(97, 61, progressive=True),
    "RGB": make_jpeg(97, 61, keep_rgb=True),
    "one pixel": make_jpeg(1, 1),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_sound_scan_is_verified(name: str) -> None:
    size = (1, 1) if name == "one pixel" else (97, 61)
    jpegtran.verify(GOOD[name], *size, rgb=name == "RGB")


def damaged(name: str, damage: str) -> bytes:
    """Damage the entropy-coded bytes of a picture, and nothing else."""
    pieces = list(take_apart(GOOD["restarts"] if "restart" in damage else GOOD[name]))
    at = max(range(len(pieces)), key=lambda n: len(pieces[n].coded))
    coded = pieces[at].coded
    half = len(coded) // 2
    match damage:
        case "cut":
            coded = coded[:half].rstrip(b"\xff")
        case "one byte less":
            coded = coded[:-2].rstrip(b"\xff")
        case "bytes too many":
            coded += bytes(range(1, 60))
        case "a code of ones":
            coded = coded[:half].rstrip(b"\xff") + b"\xff\0" * 20 + coded[half + 40 :]
        case "a restart missing":
            coded = coded.replace(b"\xff\xd1", b"", 1)
        case "a restart of another number":
            coded = coded.replace(b"\xff\xd1", b"\xff\xd5", 1)
        case "a restart too many":
            coded = coded[:half].rstrip(b"\xff") + b"\xff\xd0" + coded[half:]
    pieces[at] = pieces[at]._replace(coded=coded)
    return put_together(pieces)


@pytest.mark.parametrize("name", ["grey", "4:2:0", "progressive"])
@pytest.mark.parametrize("damage", ["cut", "one byte less", "bytes too many", "a code of ones"])
def test_a_damaged_scan_is_refused(name: str, damage: str) -> None:
    with pytest.raises(DamagedJpeg, match="entropy-coded data is damaged") as caught:
        normalised(damaged(name, damage))
    assert (caught.value.reason, caught.value.http_status) == ("damaged-scan", 422)


@pytest.mark.parametrize("damage", ["missing", "of another number", "too many"])
def test_a_damaged_restart_marker_is_refused(damage: str) -> None:
    """Pillow doesn't notice, and pylibjpeg shows another picture."""
    with pytest.raises(DamagedJpeg):
        normalised(damaged("restarts", f"a restart {damage}"))


def test_a_flipped_bit_is_refused_or_harmless() -> None:
    """Whatever passes is what djpeg decodes without a warning, to the same pixels."""
    data, random = GOOD["4:2:0"], Random(7)
    start = data.rindex(b"\xff\xda") + 14
    refused = 0
    for _ in range(60):
        flipped = bytearray(data)
        flipped[random.randrange(start, len(data) - 2)] ^= 1 << random.randrange(8)
        try:
            made = normalised(bytes(flipped))
        except DamagedJpeg:
            refused += 1
            continue
        assert furthest(sound(bytes(made.codestream)), sound(bytes(flipped))) == 0
    assert refused > 10


def test_without_verification_a_damaged_baseline_scan_passes() -> None:
    assert normalised(damaged("grey", "a code of ones"), VERIFY_SCAN="off").codestream


def test_a_library_that_is_not_there_is_named_with_its_remedy() -> None:
    with pytest.raises(NoLibrary, match="apt-get install libturbojpeg0") as caught:
        jpegtran.load(("libturbojpeg-of-nobody.so.0",))
    assert (caught.value.http_status, caught.value.transient) == (503, True)


def test_a_library_without_the_functions_is_none() -> None:
    with pytest.raises(NoLibrary):
        jpegtran.load(("libc.so.6",))


@pytest.fixture
def without_library(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose loader finds a file that is no library."""
    (tmp_path / "libturbojpeg.so.0").write_bytes(b"\x7fELF, but no more of it")
    return os.environ | {
        "LD_LIBRARY_PATH": str(tmp_path),
        "UID_NAMESPACE": "tests",
        "DATA_DIR": str(tmp_path / "data"),
        "DICOMWEB_URL": "http://127.0.0.1:9/dicomWeb",
    }


def test_without_the_library_the_service_starts_and_its_refusal_says_how_to_mend_it(
    without_library: dict[str, str],
) -> None:
    environment = without_library | {"PORT": str(free_port()), "WORKERS": "1"}
    command = processes.service_command(settings.load(environment))
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{environment['PORT']}"
            wait_for_http(f"{url}/healthz", alive=lambda: process.poll() is None)
            answer = requests.post(
                f"{url}/v1/instances",
                make_jpeg(progressive=True),
                headers={"Content-Type": "image/jpeg"},
                timeout=BOUND,
            )
        finally:
            process.terminate()
    problem = answer.json()
    assert (answer.status_code, problem["type"]) == (503, "urn:jpegstow:no-libturbojpeg")
    assert "apt-get install libturbojpeg0" in problem["mend"]


def test_without_the_library_an_upright_baseline_picture_can_be_had_unverified(
    without_library: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(make_jpeg())
    command = [sys.executable, "-c", "from service.cli import main; main()", "convert"]
    command += [str(tmp_path / "photo.jpg"), "-o", str(tmp_path / "photo.dcm")]
    refused = subprocess.run(
        command, env=without_library, capture_output=True, text=True, check=False
    )
    assert refused.returncode == 1
    assert "libturbojpeg can't be loaded" in refused.stderr
    subprocess.run(command, env=without_library | {"VERIFY_SCAN": "off"}, check=True)
    assert (tmp_path / "photo.dcm").read_bytes()[128:132] == b"DICM"


def bits(text: str) -> bytes:
    """Return entropy-coded bytes: padded with ones, and FF stuffed (T.81 F.1.2.3)."""
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\0")


def of_codes(columns: int, rows: int, blocks: Sequence[str]) -> bytes:
    """Return a grey picture of blocks given as codes.

    DC: 0 for no difference. AC: 0 ends a block, 10 is followed by a number of 13 bits. No code
    begins with 111.
    """
    differences = bytes([0, 1, 1, *[0] * 14, 0, 3])
    numbers = bytes([0x10, 1, 1, 1, *[0] * 13, 0, 13, 1])
    return stream(
        segment(0xDB, bytes([0, *[1] * 64])),
        frame(0xC0, b"\1", size=(rows, columns), sampling=[0x11]),
        segment(0xC4, differences) + segment(0xC4, numbers),
        scan(b"\1", coded=bits("".join(blocks))),
    )


PLAIN_BLOCK, LARGE_BLOCK = "0" + "0", "0" + "10" + f"{5000:013b}" + "0"


def test_a_coefficient_that_the_library_can_not_write_is_found() -> None:
    """It reads 13 bits without a warning, has no code for them, and writes another picture."""
    data = of_codes(16, 16, [PLAIN_BLOCK, LARGE_BLOCK, PLAIN_BLOCK, PLAIN_BLOCK])
    assert sound(data).shape == (16, 16)
    written = jpegtran.transform(data, jpegtran.UPRIGHT[6])
    shown, _ = djpeg(written)
    assert shown is None or furthest(shown, upright(sound(data), 6)) > 5
    exif = Image.Exif()
    exif[0x0112] = 6
    with pytest.raises(DamagedJpeg):
        normalised(behind_soi(data, segment(0xE1, exif.tobytes())))


def test_a_code_that_no_table_has_is_found_where_the_library_takes_it_for_zero() -> None:
    """libjpeg-turbo reads long scans in memory fast, and such a code as the end of a block."""
    block = "0" + "1" * 17
    data = of_codes(2400, 1600, [PLAIN_BLOCK] * 999 + [block] + [LARGE_BLOCK] * 59_000)
    jpegtran.verify(data, 2400, 1600, rgb=False)  # hears nothing
    with pytest.raises(DamagedJpeg, match="bad Huffman code"):
        normalised(data)
