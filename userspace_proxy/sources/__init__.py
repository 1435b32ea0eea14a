"""Sources of Services: the API server, files, or the embedding program.

    list and watch ──▶ kubernetes ─┐
    files ───────────▶ manifests ──┼──▶ snapshots, through one contract (``base``)
    calls ───────────▶ memory ─────┘

Importing this package imports neither kubernetes_asyncio nor aiohttp; ``kubernetes`` does.
"""

from .base import Happening, Publish, Source, SourceStatus
from .manifests import ManifestSource, load_manifests
from .memory import MemorySource

__all__ = [
    "Happening",
    "ManifestSource",
    "MemorySource",
    "Publish",
    "Source",
    "SourceStatus",
    "load_manifests",
]
