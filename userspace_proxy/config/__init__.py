"""Defines settings in one table, from which flags, help, files, docs and validation are derived.

    flags.read_flags ──┐
    kubeproxy (file) ──┼──▶ load ──▶ Settings, warnings
    settings (table) ──┘

``Settings()`` contains the defaults, for programs that embed the proxy.
"""

from .load import Loaded, load_settings
from .settings import Settings
from .values import InheritedSocket, ListenAddress, PortRange

__all__ = [
    "InheritedSocket",
    "ListenAddress",
    "Loaded",
    "PortRange",
    "Settings",
    "load_settings",
]
