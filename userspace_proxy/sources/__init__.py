"""Provides Services from the API server, from files, or from the embedding program.

    list and watch ──▶ kubernetes ─┐
    files ───────────▶ manifests ──┼──▶ snapshots, through one contract (``base``)
    calls ───────────▶ memory ─────┘

Importing this package doesn't import kubernetes_asyncio, aiohttp or PyYAML. Modules for manifests
are imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Happening, Publish, Source, SourceStatus
from .memory import MemorySource

if TYPE_CHECKING:
    from .manifests import ManifestSource, load_state

__all__ = [
    "Happening",
    "ManifestSource",
    "MemorySource",
    "Publish",
    "Source",
    "SourceStatus",
    "load_state",
]


def __getattr__(name: str) -> object:
    if name in {"ManifestSource", "load_state"}:
        from . import manifests

        return getattr(manifests, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
