"""The retry queue: whatever a store has not taken is kept here, and sent again."""

from service.retry.breaker import Breaker, GuardedStore, UnaskedStore
from service.retry.drain import Drain, Pace
from service.retry.entry import STATES, Entry, Past, State
from service.retry.kept import Kept
from service.retry.protocol import LEASE, Filter, Lease, Limits, Page, Queue, Totals
from service.retry.sqlite_queue import SqliteQueue

__all__ = [
    "LEASE",
    "STATES",
    "Breaker",
    "Drain",
    "Entry",
    "Filter",
    "GuardedStore",
    "Kept",
    "Lease",
    "Limits",
    "Pace",
    "Page",
    "Past",
    "Queue",
    "SqliteQueue",
    "State",
    "Totals",
    "UnaskedStore",
]
