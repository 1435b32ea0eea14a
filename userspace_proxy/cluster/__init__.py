"""The latest objects from the source, and immutable snapshots of them."""

from .persistent import PersistentMap, differing_keys
from .store import ServiceState, Snapshot, Store

__all__ = ["PersistentMap", "ServiceState", "Snapshot", "Store", "differing_keys"]
