"""Everything that jpegstow refuses, as exceptions.

A class answers two questions: which HTTP status, and is it worth another try (`transient`).
An instance says what is wrong, where, and how to mend it. No text ever holds an attribute's value.

    JpegstowError
    ├── BadRequest            400  the request itself: no image, malformed JSON, too many parts
    │   ├── BadAttribute      400  a keyword, a VR, a value; `where` names the attribute
    │   └── UnknownTemplate   400
    ├── TooLarge              413  bytes, pixels, images
    ├── NotDecodable          406  Pixel Data that can't be had uncompressed
    ├── NotAJpeg              415  another format, named by its magic bytes
    ├── UnsupportedJpeg       415  a sound JPEG that DICOM has no transfer syntax for
    ├── DamagedJpeg           422  truncated, malformed; `where` is a byte offset
    ├── BadTemplate           500  a template file of the operator's
    ├── BadSettings           500  the configuration; lists every problem at once
    ├── Unauthorized          401  a request without credentials that can be trusted
    ├── Forbidden             403  a request whose credentials are good, but not for this
    ├── ObjectGone            404  a bucket holds no such object, or not in that generation
    ├── KeysUnavailable       503  the keys of tokens can't be had now (`tokens`)
    ├── ProviderUnavailable   503  the provider can't be asked now (`access.login`)
    ├── KeysUnusable          503  the file of API keys can't be used (`access.keys`)
    ├── ObjectUnavailable     503  a bucket can't be read now, or not by us
    ├── NoSuchEntry           404  the retry queue doesn't hold it, or no longer
    ├── EntryChanged          409  an entry isn't any more what somebody took it for
    ├── ArchiveInUse          409  the archive is open elsewhere, and has to be alone for this
    ├── BeingSent             409  an entry can't be changed while it is on its way
    ├── DamagedEntry          500  what the retry queue kept of an instance is damaged or gone
    ├── NotYet                503  an alarm of an entry that waits on (`gcp.queue.redelivery`)
    ├── QueueFull             503  the retry queue has reached its limit
    ├── Busy                  503  as much is being decoded at once as memory allows
    ├── QueueUnusable         503  the retry queue can't be read or written
    ├── TooManyRequests       429  a caller asks more often than RATE_LIMIT (`access.rate`)
    └── NoLibrary             503  libturbojpeg is missing (`dicom.jpegtran`, with NotPerfect,
                                   which `dicom.normalise` answers by its policy)
"""

from collections.abc import Sequence


class JpegstowError(Exception):
    """Anything that jpegstow refuses.

    Parameters
    ----------
    detail
        What is wrong, as one sentence without the final full stop.
    reason
        A short slug that never changes, for programs and for counting (``truncated``).
    where
        The attribute (``StudyDate``, ``AnatomicRegionSequence[1].CodeValue``), the byte offset
        (``byte 1234``), or the setting.
    mend
        What the caller can do about it, as one sentence.
    """

    http_status = 500
    transient = False
    title = "Internal error"
    reason = "error"

    def __init__(self, detail: str, *, reason: str = "", where: str = "", mend: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason or self.reason
        self.where = where
        self.mend = mend

    def __str__(self) -> str:
        """Return all three parts as one line, for logs and terminals."""
        where = f" ({self.where})" if self.where else ""
        mend = f"; {self.mend}" if self.mend else ""
        return f"{self.detail}{where}{mend}"


class BadRequest(JpegstowError):
    """The request itself can't be understood."""

    http_status = 400
    title = "Bad request"
    reason = "bad-request"


class BadAttribute(BadRequest):
    """An attribute that is unknown, not the caller's to set, or has a value that its VR forbids."""

    title = "Attribute not acceptable"
    reason = "bad-attribute"


class UnknownTemplate(BadRequest):
    """No template has that name."""

    title = "Unknown template"
    reason = "unknown-template"


class TooLarge(JpegstowError):
    """More bytes, pixels or images than the settings allow."""

    http_status = 413
    title = "Too large"
    reason = "too-large"


class NotAJpeg(JpegstowError):
    """The bytes are of another format, whatever their name or Content-Type says."""

    http_status = 415
    title = "Not a JPEG"
    reason = "not-a-jpeg"


class UnsupportedJpeg(JpegstowError):
    """A JPEG that no DICOM transfer syntax can carry as it is."""

    http_status = 415
    title = "JPEG not representable in DICOM"
    reason = "unsupported-jpeg"


class NotDecodable(JpegstowError):
    """Pixel Data that is damaged, or compressed in a way that can't be decoded here."""

    http_status = 406
    title = "Pixel Data not decodable"
    reason = "not-decodable"


class Busy(JpegstowError):
    """No memory was free for as long as a request may wait for it."""

    http_status = 503
    transient = True
    title = "Busy"
    reason = "busy"


class DamagedJpeg(JpegstowError):
    """A JPEG that is truncated or breaks the rules of its own format."""

    http_status = 422
    title = "Damaged JPEG"
    reason = "damaged-jpeg"


class Unauthorized(JpegstowError):
    """A request without credentials, or with some that can't be trusted."""

    http_status = 401
    title = "Unauthorized"
    reason = "unauthorized"


class Forbidden(JpegstowError):
    """A request whose credentials are good, but not for what it asks."""

    http_status = 403
    title = "Forbidden"
    reason = "forbidden"


class ObjectGone(JpegstowError):
    """A bucket holds no such object, or no longer in the generation that was asked for."""

    http_status = 404
    title = "Object gone"
    reason = "object-gone"


class ObjectUnavailable(JpegstowError):
    """A bucket that can't be read now, or not with the rights that we have."""

    http_status = 503
    transient = True
    title = "Object unavailable"
    reason = "object-unavailable"


class NoSuchEntry(JpegstowError):
    """The retry queue holds no such entry; it may have been stored meanwhile."""

    http_status = 404
    title = "No such entry"
    reason = "no-such-entry"


class BeingSent(JpegstowError):
    """An entry of the retry queue can't be changed while it is being sent."""

    http_status = 409
    transient = True
    title = "Being sent"
    reason = "being-sent"


class ArchiveInUse(JpegstowError):
    """Another process has the archive open."""

    http_status = 409
    title = "Archive in use"
    reason = "archive-in-use"


class EntryChanged(JpegstowError):
    """An entry of the retry queue has become another since somebody looked at it."""

    http_status = 409
    title = "Entry changed"
    reason = "entry-changed"


class DamagedEntry(JpegstowError):
    """What the retry queue kept of an instance is damaged or gone; only a new upload mends that."""

    title = "Damaged entry"
    reason = "damaged-entry"


class QueueFull(JpegstowError):
    """The retry queue holds as much as it may."""

    http_status = 503
    transient = True
    title = "Retry queue full"
    reason = "queue-full"


class QueueUnusable(JpegstowError):
    """The retry queue can't be read or written: a full disk, missing rights, a damaged file."""

    http_status = 503
    transient = True
    title = "Retry queue not usable"
    reason = "queue-unusable"


class BadTemplate(JpegstowError):
    """A template file that can't be used."""

    title = "Template not usable"
    reason = "bad-template"


class BadSettings(JpegstowError):
    """A configuration that can't be used; `problems` lists everything wrong with it."""

    title = "Configuration not usable"
    reason = "bad-settings"

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("the configuration can't be used: " + "; ".join(problems))
        self.problems = tuple(problems)
