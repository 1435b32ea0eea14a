"""Stores the source's latest objects, and returns immutable snapshots of them."""

from .persistent import PersistentMap, differing_keys
from .slices import Slices
from .store import ServiceState, Snapshot, Store, count_new, differing_slices

__all__ = [
    "PersistentMap",
    "ServiceState",
    "Slices",
    "Snapshot",
    "Store",
    "count_new",
    "differing_keys",
    "differing_slices",
]
