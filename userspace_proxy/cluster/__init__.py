"""The latest objects from the source, and immutable snapshots of them."""

from .persistent import PersistentMap, differing_keys
from .snapshot import ServiceState, Snapshot
from .store import Store

__all__ = ["PersistentMap", "ServiceState", "Snapshot", "Store", "differing_keys"]
