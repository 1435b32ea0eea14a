"""Gives the package userspace-proxy's version, and requires userspace-proxy at this version.

The checkout declares the version, authors, URLs and readme format. A source distribution contains
them in its metadata, which hatchling uses instead of this hook.
"""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Fills in the metadata that depends on the checkout, and the pytest dependency."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        metadata |= runpy.run_path(str(root.parent / "hatch_build.py"))["of_same_version"](root)
        metadata["dependencies"].append("pytest>=8.3")
