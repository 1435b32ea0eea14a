"""The proxy as a library: programs add Services by calls, with or without an event loop."""

from .added_service import AddedService
from .proxy import Proxy

__all__ = ["AddedService", "Proxy"]
