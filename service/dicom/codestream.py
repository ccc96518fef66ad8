"""A compressed image as the pieces that it is made of."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

Buffer = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Codestream:
    """The bytes of one compressed frame: new headers beside views of the upload's own bytes.

    Nothing is joined until somebody needs the whole; a payload sends the pieces as they are.
    """

    pieces: tuple[Buffer, ...]

    def __len__(self) -> int:
        """Return the length in bytes."""
        return sum(map(len, self.pieces))

    def __iter__(self) -> Iterator[Buffer]:
        """Yield the pieces in order."""
        return iter(self.pieces)

    def __bytes__(self) -> bytes:
        """Return one contiguous copy."""
        return b"".join(self.pieces)

    def __eq__(self, other: object) -> bool:
        """Tell whether the bytes are the same, wherever the pieces are cut."""
        if not isinstance(other, Codestream):
            return NotImplemented
        return len(self) == len(other) and self.sha256() == other.sha256()

    def __hash__(self) -> int:
        """Hash the content."""
        return hash(self.sha256())

    def sha256(self) -> str:
        """Return the SHA-256 of the bytes, in hexadecimal."""
        digest = hashlib.sha256()
        for piece in self.pieces:
            digest.update(piece)
        return digest.hexdigest()
