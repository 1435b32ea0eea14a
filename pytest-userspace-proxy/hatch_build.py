"""Gives this distribution the version of userspace-proxy, and requires that version of it.

That and the authors, the addresses and the readme's form are declared in the checkout. A source
distribution has them in its metadata, which hatchling then uses, and this hook has nothing to do.
"""

from __future__ import annotations

import runpy
import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Fills in what the checkout decides."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Part of MetadataHookInterface."""
        root = Path(self.root)
        checkout = root.parent
        declared = runpy.run_path(str(checkout / "hatch_build.py"))
        version = declared["declared_version"](checkout)
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
        metadata |= declared["addresses"](checkout, root)
        metadata["authors"] = project["project"]["authors"]
        metadata["version"] = version
        metadata["dependencies"] = [f"userspace-proxy=={version}", "pytest>=8.3"]
