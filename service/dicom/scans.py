"""The scan headers of a JPEG: which components and coefficients each scan codes, and how finely."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from service.dicom.jpeg import JpegHeader

PROGRESSIVE: Final = frozenset({0xC2, 0xCA})


class Scan(NamedTuple):
    """A scan header: ``Ns u8, Ns x (Cs u8, Td/Ta u4 u4), Ss u8, Se u8, Ah/Al u4 u4``.

    Attributes
    ----------
    selectors
        Component identifier, destinations of the DC and the AC table, of each component.
    first, last
        The band of coefficients, 0 to 63.
    low
        Al, how many low bits of them are left to later scans.
    """

    selectors: tuple[tuple[int, int, int], ...]
    first: int
    last: int
    low: int


def read(data: bytes, header: JpegHeader) -> Iterator[Scan]:
    """Yield the scan headers in order; one of an impossible length is left out."""
    for segment in header.scans:
        payload = data[segment.payload]
        if payload and len(payload) == 4 + 2 * payload[0]:
            pairs = zip(payload[1:-3:2], payload[2:-3:2], strict=True)
            selectors = tuple((one, tables >> 4, tables & 15) for one, tables in pairs)
            yield Scan(selectors, payload[-3], payload[-2], payload[-1] & 15)


def are_all_there(data: bytes, header: JpegHeader) -> bool:
    """Tell whether the scans give each coefficient of each component its last bit.

    Those of a progressive JPEG may end early, before an EOI that a proxy has put there, and still
    be a picture, though a blurred one, which each decoder smooths in its own way.
    """
    missing = {(c.identifier, k) for c in header.components for k in range(64)}
    for scan in read(data, header):
        if header.process not in PROGRESSIVE:
            missing -= {(one, k) for one, _, _ in scan.selectors for k in range(64)}
        elif scan.low == 0:
            band = range(scan.first, scan.last + 1)
            missing -= {(one, k) for one, _, _ in scan.selectors for k in band}
    return not missing


def used_huffman_tables(data: bytes, header: JpegHeader) -> set[tuple[int, int]]:
    """Return class (0 DC, 1 AC) and destination of the tables that the scans name."""
    return {
        (kind, destination)
        for scan in read(data, header)
        for _, *destinations in scan.selectors
        for kind, destination in enumerate(destinations)
    }


def parameters(data: bytes, header: JpegHeader) -> set[tuple[int, int]]:
    """Return Ss and Al of all scans: predictor and point transform of a lossless process."""
    return {(scan.first, scan.low) for scan in read(data, header)}
