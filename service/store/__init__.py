"""Any DICOMweb server as a store.

The modules, each of which may import those above it:

    watch     deadlines: connections that are cut in time
    session   connections that are kept, and credentials
    client    one outgoing call, one map of its failures
    refusal   what a status that brings nothing means
    read_back whether a store has what it says it has
    deletion  delete, and the operations that it begins
    dicomweb  the store itself
    search    search, by dicomweb-client; loaded only where it is used
"""

from service.store.client import MAX_ANSWER
from service.store.dicomweb import DicomwebStore

__all__ = ["MAX_ANSWER", "DicomwebStore"]
