"""A dead entry's second life: described anew, with what its sender or an operator says better."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from service.dicom import attributes
from service.dicom.dataset import overlay
from service.errors import BeingSent, NoSuchEntry
from service.ingest import Rules, describe_normalised
from service.retry.protocol import Filter, Queue, is_held


def mend(
    queue: Queue, sop_instance_uid: str, said: Mapping[str, Any], rules: Rules, now: float
) -> str:
    """Describe a kept instance with further attributes, and let it be tried at once.

    Parameters
    ----------
    said
        Attributes by keyword, laid over the upload's own; under ``template`` the name of another
        template.
    now
        In seconds since 1970.

    Returns
    -------
    str
        The SOP Instance UID, another one where the content has become another.

    Raises
    ------
    JpegstowError
        Whatever is wrong with the attributes, or with the queue. Nothing is changed then.
    """
    if is_held(queue.show(sop_instance_uid), now):
        raise BeingSent(
            "the entry is being sent at this moment",
            where="id",
            mend="look again in half a minute: it may be stored by then",
        )
    found = queue.load(sop_instance_uid)
    further = {name: value for name, value in said.items() if name != "template"}
    upload = replace(
        found.upload,
        attributes=overlay(found.upload.attributes, attributes.parse(further)),
        template=str(said.get("template") or found.upload.template),
    )
    described = describe_normalised(upload, found.described.normalised, rules)
    mended = described.instance.sop_instance_uid
    if mended == sop_instance_uid:
        if not queue.revive(Filter(instance=mended), now):
            queue.show(mended)
    else:
        # The new one is safe before the old one goes. A worker may have taken the old one
        # meanwhile: then that is sent too, as it would have been a moment earlier.
        queue.put(upload, described, None, now)
        with suppress(BeingSent, NoSuchEntry):
            queue.drop(sop_instance_uid, now)
    return mended
