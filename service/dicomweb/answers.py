"""DICOM data sets as HTTP answers."""

from collections.abc import Sequence

from flask import Response

from service.dicom import multipart
from service.dicom.codestream import Codestream
from service.dicom.json_model import JsonObject, dumps
from service.dicomweb.accept import Offer
from service.dicomweb.native_xml import to_xml

JSON = Offer("application/dicom+json")
XML = Offer("application/dicom+xml")
XML_PARTS = Offer("application/dicom+xml", multipart=True)


def data_sets(models: Sequence[JsonObject], offer: Offer) -> Response:
    """Answer with data sets: a JSON array, or one XML document per part (PS3.18 8.7.3.2)."""
    if offer == JSON:
        return Response(dumps(list(models)), content_type=JSON.media_type)
    if not models:
        return Response(status=204)
    headers = {"Content-Type": XML.media_type}
    return parts([multipart.Part(headers, Codestream((to_xml(model),))) for model in models], offer)


def parts(bodies: Sequence[multipart.Part], offer: Offer) -> Response:
    """Answer with a multipart/related from memory."""
    payload = multipart.encode(bodies, offer.media_type)
    return Response(b"".join(payload), content_type=payload.content_type)
