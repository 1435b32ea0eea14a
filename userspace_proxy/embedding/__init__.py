"""The proxy inside another program: Services that it adds by calls, with or without a loop."""

from .added_service import AddedService
from .proxy import Proxy

__all__ = ["AddedService", "Proxy"]
