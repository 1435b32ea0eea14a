"""Guarantees to the users of a worker: each module judges one, from outside the worker.

clients, flows (record events) ──▶ promise (receives events) ──▶ judgements
"""

from .addresses import Addresses
from .counters import Counters
from .datagrams import Datagrams
from .endpoints import Endpoints
from .ends import Ends
from .limits import Limits
from .places import Places
from .progress import Progress
from .promise import Promise
from .rest import Rest
from .shares import Shares
from .streams import Streams
from .waits import Waits

PROMISES: tuple[type[Promise], ...] = (
    Streams,
    Progress,
    Ends,
    Addresses,
    Endpoints,
    Shares,
    Limits,
    Waits,
    Datagrams,
    Places,
    Counters,
    Rest,
)

__all__ = ["PROMISES", "Promise"]
