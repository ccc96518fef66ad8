"""A reader of DCT coefficients of its own, to judge lossless transforms by: ITU-T T.81, Huffman.

Sequential and progressive JPEGs of 8 bits. It shares nothing with libjpeg, and nothing with the
service: what both it and a decoder read from a codestream is what stands there.
"""

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from tests.streams import Piece, take_apart

Blocks = NDArray[np.int32]
"""Block rows x block columns x 8 x 8: vertical frequency, horizontal frequency."""


def _zigzag() -> list[int]:
    """Return the place in a block, row by row, of each coefficient in its order in the stream."""

    def order(place: int) -> tuple[int, int]:
        row, column = divmod(place, 8)
        return row + column, row if (row + column) % 2 else column

    return sorted(range(64), key=order)


_ZIGZAG = _zigzag()


@dataclass
class _Component:
    identifier: int
    horizontal: int
    vertical: int
    rows: int  # of blocks that show a part of the picture
    columns: int
    blocks: Blocks


@dataclass
class _Decoder:
    """The state of a whole JPEG, and of the scan that is being read."""

    tables: dict[int, dict[str, int]] = field(default_factory=dict)
    components: list[_Component] = field(default_factory=list)
    across: int = 0  # MCUs
    down: int = 0
    progressive: bool = False
    interval: int = 0
    bits: str = ""
    position: int = 0
    end_of_band: int = 0
    predictions: dict[int, int] = field(default_factory=dict)

    def take(self, count: int) -> int:
        start, self.position = self.position, self.position + count
        assert self.position <= len(self.bits), "the scan has too few bits"
        return int(self.bits[start : self.position], 2) if count else 0

    def symbol(self, table: dict[str, int]) -> int:
        for length in range(1, 17):
            code = self.bits[self.position : self.position + length]
            if code in table:
                self.position += length
                return table[code]
        raise AssertionError("the scan has a code that no table has")

    def number(self, size: int) -> int:
        """Read a number whose first bit tells its sign (T.81 F.2.2.1)."""
        value = self.take(size)
        return value if not size or value >> (size - 1) else value - (1 << size) + 1


def coefficients(data: bytes) -> list[Blocks]:
    """Return the quantized coefficients of each component, without the blocks of padding."""
    decoder = _Decoder()
    for piece in take_apart(data):
        _read(decoder, piece)
    return [
        component.blocks[: component.rows, : component.columns].reshape(
            component.rows, component.columns, 8, 8
        )
        for component in decoder.components
    ]


def quantization(data: bytes) -> list[tuple[int, ...]]:
    """Return the 64 quantization values of each component, row by row."""
    tables: dict[int, tuple[int, ...]] = {}
    numbers: list[int] = []
    for piece in take_apart(data):
        payload = piece.payload
        while piece.marker == 0xDB and payload:
            form = struct.Struct(">64H" if payload[0] >> 4 else ">64B")
            values = form.unpack_from(payload, 1)
            table = dict(zip(_ZIGZAG, values, strict=True))
            tables[payload[0] & 15] = tuple(table[place] for place in range(64))
            payload = payload[1 + form.size :]
        if piece.marker in {0xC0, 0xC1, 0xC2}:
            numbers = list(payload[8::3])
    return [tables[number] for number in numbers]


def turned(blocks: Blocks, orientation: int) -> Blocks:
    """Return the coefficients that the upright picture of an EXIF orientation has.

    To mirror a block is to negate its odd frequencies along that axis; to transpose it is to
    transpose its frequencies.
    """
    swap = orientation >= 5
    left_right = orientation in {2, 3, 6, 7}
    top_bottom = orientation in {3, 4, 7, 8}
    sign = np.where(np.arange(8) % 2, -1, 1)
    if swap:
        blocks = blocks.transpose(1, 0, 3, 2)
    if left_right:
        blocks = blocks[:, ::-1] * sign
    if top_bottom:
        blocks = blocks[::-1] * sign[:, None]
    return blocks


def _read(decoder: _Decoder, piece: Piece) -> None:
    match piece.marker:
        case 0xC4:
            decoder.tables |= dict(_huffman_tables(piece.payload))
        case 0xDD:
            (decoder.interval,) = struct.unpack(">H", piece.payload)
        case 0xC0 | 0xC1 | 0xC2:
            decoder.progressive = piece.marker == 0xC2
            _frame(decoder, piece.payload)
        case 0xDA:
            _scan(decoder, piece)


def _huffman_tables(payload: bytes) -> Iterator[tuple[int, dict[str, int]]]:
    while payload:
        counts = payload[1:17]
        symbols = iter(payload[17:])
        table, code = {}, 0
        for length, count in enumerate(counts, 1):
            for symbol in islice(symbols, count):
                table[f"{code:0{length}b}"] = symbol
                code += 1
            code <<= 1
        yield payload[0], table
        payload = payload[17 + sum(counts) :]


def _frame(decoder: _Decoder, payload: bytes) -> None:
    rows, columns = struct.unpack_from(">HH", payload, 1)
    said = list(struct.iter_unpack("BBB", payload[6:]))
    most_across = max(sampling >> 4 for _, sampling, _ in said)
    most_down = max(sampling & 15 for _, sampling, _ in said)
    decoder.across = -(-columns // (8 * most_across))
    decoder.down = -(-rows // (8 * most_down))
    for identifier, sampling, _ in said:
        across, down = sampling >> 4, sampling & 15
        shape = decoder.down * down, decoder.across * across, 64
        component = _Component(
            identifier,
            across,
            down,
            rows=math.ceil(math.ceil(rows * down / most_down) / 8),
            columns=math.ceil(math.ceil(columns * across / most_across) / 8),
            blocks=np.zeros(shape, np.int32),
        )
        decoder.components.append(component)


def _scan(decoder: _Decoder, piece: Piece) -> None:
    first, last, approximation = piece.payload[-3:]
    selected = [
        (component, tables)
        for identifier, tables in struct.iter_unpack("BB", piece.payload[1:-3])
        for component in decoder.components
        if component.identifier == identifier
    ]
    intervals = iter(re.split(rb"\xff[\xd0-\xd7]", piece.coded))
    for count, unit in enumerate(_units(decoder, selected)):
        if count == 0 or (decoder.interval and count % decoder.interval == 0):
            coded = next(intervals).replace(b"\xff\x00", b"\xff")
            decoder.bits = "".join(f"{byte:08b}" for byte in coded)
            decoder.position = decoder.end_of_band = 0
            decoder.predictions = {}
        for component, tables, row, column in unit:
            block = component.blocks[row, column]
            _block(decoder, block, component.identifier, tables, (first, last, approximation))


def _units(
    decoder: _Decoder, selected: list[tuple[_Component, int]]
) -> Iterator[list[tuple[_Component, int, int, int]]]:
    """Yield the blocks of each MCU (T.81 A.2)."""
    if len(selected) == 1:
        ((component, tables),) = selected
        for row in range(component.rows):
            for column in range(component.columns):
                yield [(component, tables, row, column)]
        return
    for down in range(decoder.down):
        for across in range(decoder.across):
            yield [
                (one, tables, down * one.vertical + row, across * one.horizontal + column)
                for one, tables in selected
                for row in range(one.vertical)
                for column in range(one.horizontal)
            ]


def _block(
    decoder: _Decoder, block: Blocks, identifier: int, tables: int, band: tuple[int, int, int]
) -> None:
    first, last, approximation = band
    high, low = approximation >> 4, approximation & 15
    if not decoder.progressive:
        first, last, high, low = 0, 63, 0, 0
    if first == 0 and high:
        block[0] |= decoder.take(1) << low
    elif first == 0:
        difference = decoder.number(decoder.symbol(decoder.tables[tables >> 4]))
        decoder.predictions[identifier] = decoder.predictions.get(identifier, 0) + difference
        block[0] = decoder.predictions[identifier] << low
    if last == 0:
        return
    table = decoder.tables[16 | tables & 15]
    if high:
        _refine(decoder, block, table, range(first, last + 1), low)
    else:
        _first_pass(decoder, block, table, range(max(1, first), last + 1), low)


def _first_pass(
    decoder: _Decoder, block: Blocks, table: dict[str, int], band: range, low: int
) -> None:
    """Read AC coefficients for the first time (T.81 F.2.2.2, G.1.2.2)."""
    if decoder.end_of_band:
        decoder.end_of_band -= 1
        return
    k = band.start
    while k < band.stop:
        run, size = divmod(decoder.symbol(table), 16)
        if size:
            k += run
            block[_ZIGZAG[k]] = decoder.number(size) * (1 << low)
        elif run == 15:
            k += 15
        else:
            decoder.end_of_band = (1 << run) - 1 + decoder.take(run)
            return
        k += 1


def _refine(decoder: _Decoder, block: Blocks, table: dict[str, int], band: range, low: int) -> None:
    """Read one more bit of AC coefficients (T.81 G.1.2.3)."""
    places = iter(_ZIGZAG[k] for k in band)
    while not decoder.end_of_band:
        run, size = divmod(decoder.symbol(table), 16)
        if not size and run < 15:
            decoder.end_of_band = (1 << run) + decoder.take(run)
            break
        value = (1 if decoder.take(1) else -1) << low if size else 0
        for place in places:
            if block[place]:
                _correct(decoder, block, place, low)
            elif run:
                run -= 1
            else:
                block[place] = value
                break
        else:
            return
        if place == _ZIGZAG[band.stop - 1]:
            return
    for place in places:
        if block[place]:
            _correct(decoder, block, place, low)
    decoder.end_of_band -= 1


def _correct(decoder: _Decoder, block: Blocks, place: int, low: int) -> None:
    if decoder.take(1):
        block[place] += (1 << low) if block[place] > 0 else -(1 << low)
