"""What the API server (or the manifests) said last, and immutable pictures of it."""

from .snapshot import ServiceState, Snapshot
from .store import Store

__all__ = ["ServiceState", "Snapshot", "Store"]
