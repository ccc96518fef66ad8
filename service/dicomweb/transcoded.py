"""Instances in Explicit VR Little Endian that are stored otherwise, decoded while they are sent."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydicom import Dataset

from service.archive import Instance
from service.dicom import decoding, part10
from service.dicom.budget import Budget
from service.dicom.decoding import EXPLICIT, Coding
from service.dicomweb.accept import Offer

_DICOM = "application/dicom"
_COPIES = 3  # of a decoded frame: the decoder's, Python's, and one in another order
_PATIENCE = 10.0  # seconds
BUDGET = Budget(_COPIES * decoding.MAX_FRAME * 2, _PATIENCE)
_CODING = ("00280004", "00280002", "00280100", "00280103")  # in the order of `Coding`


def offers(found: Sequence[Instance], *, single: bool) -> list[Offer]:
    """Return in what forms these files can be had: Explicit VR Little Endian first, if at all.

    Parameters
    ----------
    single
        Whether a file can come without a ``multipart/related`` around it.
    """
    syntaxes = {instance.transfer_syntax for instance in found}
    stored = syntaxes.pop() if len(syntaxes) == 1 else "*"
    forms = [Offer(_DICOM, stored, multipart=True)]
    if stored != EXPLICIT and all(map(is_decodable, found)):
        forms.insert(0, Offer(_DICOM, EXPLICIT, multipart=True, transcoded=True))
    return forms + ([replace(form, multipart=False) for form in forms] if single else [])


def is_decodable(instance: Instance) -> bool:
    """Tell from its row whether an instance can be had in Explicit VR Little Endian."""
    model = json.loads(instance.attributes)
    values = [model.get(tag, {}).get("Value", [None])[0] for tag in _CODING]
    return Coding(instance.transfer_syntax, *values).is_decodable


def file(path: Path) -> tuple[int, Iterator[bytes]]:
    """Return the length of a file in Explicit VR Little Endian, and its pieces.

    Raises
    ------
    NotDecodable
        If Pixel Data can't be decoded; from the iterator, if it is a frame that can't.
    Busy
        From the iterator, if there is no memory for a frame.
    """
    dataset = part10.decode(path.read_bytes())
    length, pieces = decoding.explicit(dataset)
    return length, within_budget(pieces, dataset)


def within_budget(pieces: Iterator[bytes], dataset: Dataset) -> Iterator[bytes]:
    """Decode each next frame only when there is memory for it."""
    while True:
        with BUDGET.take(_COPIES * _size(dataset)):
            piece = next(pieces, None)
        if piece is None:
            return
        yield piece


def _size(dataset: Dataset) -> int:
    encapsulated = "PixelData" in dataset and dataset["PixelData"].is_undefined_length
    return decoding.frame_size(dataset) if encapsulated else 0
