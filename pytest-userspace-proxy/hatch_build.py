"""Gives this distribution the version of userspace-proxy, and requires that version of it.

It is declared in ``userspace_proxy/version.py`` of the checkout. A source distribution has it in
its metadata, which hatchling then uses, and this hook has nothing to do.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Fills in what the version decides."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Part of MetadataHookInterface."""
        declared = Path(self.root).parent / "userspace_proxy" / "version.py"
        version = runpy.run_path(str(declared))["__version__"]
        metadata["version"] = version
        metadata["dependencies"] = [f"userspace-proxy=={version}", "pytest>=8.3"]
