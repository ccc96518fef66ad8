"""A dead entry's second life: tried again, or described anew with what somebody knows better."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from service.dicom import attributes
from service.dicom.dataset import overlay
from service.errors import BadRequest
from service.ingest import Rules, describe_normalised, describe_upload
from service.retry.protocol import Filter, Queue, check_free


@dataclass(frozen=True, slots=True)
class Correction:
    """What an operator says better than the upload did.

    Attributes
    ----------
    attributes
        As an upload has them, by keyword; laid over the upload's own.
    template
        The name of another template; empty for the upload's own.
    """

    attributes: Mapping[str, Any] = field(default_factory=dict)
    template: str = ""


def retry(queue: Queue, sop_instance_uid: str, now: float) -> None:
    """Let an entry be tried at once.

    Raises
    ------
    JpegstowError
        NoSuchEntry, BeingSent; BadRequest if it has never been described, and so only `mend` helps.
    """
    if not queue.revive(Filter(instance=sop_instance_uid), now):
        entry = queue.show(sop_instance_uid)
        check_free(entry, now)
        if not entry.is_described:
            raise BadRequest(
                "what was wrong with it still is: it could not be described",
                where="id",
                mend="retry it with better attributes, or with a template, or upload it again",
            )


def mend(
    queue: Queue, sop_instance_uid: str, correction: Correction, rules: Rules, now: float
) -> str:
    """Describe a kept instance anew, and let it be tried at once.

    Parameters
    ----------
    now
        In seconds since 1970.

    Returns
    -------
    str
        The SOP Instance UID, another one where the content has become another.

    Raises
    ------
    JpegstowError
        Whatever is wrong with the correction, or with the queue. Nothing is changed then.
    """
    check_free(queue.show(sop_instance_uid), now)
    found = queue.load(sop_instance_uid)
    said = attributes.parse(correction.attributes)
    upload = replace(
        found.upload,
        attributes=overlay(found.upload.attributes, said),
        template=correction.template or found.upload.template,
    )
    if found.described:
        described = describe_normalised(upload, found.described.normalised, rules)
    else:
        described = describe_upload(upload, rules)
    mended = described.instance.sop_instance_uid
    if mended == sop_instance_uid:
        queue.revive(Filter(instance=mended), now)
    else:
        queue.replace(sop_instance_uid, upload, described, now)
    return mended
