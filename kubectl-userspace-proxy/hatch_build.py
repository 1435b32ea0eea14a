"""Sets the version to userspace-proxy's, requires that version of it, and adds a manual page.

The checkout declares the version, authors, URLs and readme format. A source distribution contains
them in its metadata, which hatchling then uses, and contains the page.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface


class SameVersion(MetadataHookInterface):
    """Fills in the metadata that depends on the checkout."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        metadata |= runpy.run_path(str(root.parent / "hatch_build.py"))["of_same_version"](root)


PAGE = "kubectl-userspace-proxy.8"


class Manual(BuildHookInterface[Any]):
    """Writes the manual page of the plugin's own commands for the duration of a build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the page; an editable install has none, because it would become outdated."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        page = Path(self.root, PAGE)
        if not page.is_file():
            page = Path(self._folder.name, PAGE)
            page.write_text(made_page(Path(self.root)), encoding="utf-8")
        if self.target_name == "wheel":
            build_data["shared_data"][str(page)] = f"share/man/man8/{PAGE}"
        else:
            build_data["force_include"][str(page)] = PAGE

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if version != "editable":
            self._folder.cleanup()


def made_page(root: Path) -> str:
    """Return the page, rendered by the checkout's code, which this adds to ``sys.path``."""
    sys.path[:0] = [str(root.parent), str(root)]
    from userspace_proxy.cli.man import plugin_page
    from userspace_proxy_kubectl.cli.table import DASHBOARD, FORWARD, NODES, REPORT

    return plugin_page("show and reach the nodes of a cluster", (NODES, DASHBOARD, REPORT, FORWARD))
