"""What the API server (or the manifests) said last, and immutable pictures of it."""

from .persistent import PersistentMap, differing_keys
from .snapshot import ServiceState, Snapshot
from .store import Store

__all__ = ["PersistentMap", "ServiceState", "Snapshot", "Store", "differing_keys"]
