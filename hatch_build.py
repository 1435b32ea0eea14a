"""Puts the manual page and the shells' completions into each wheel, where programs look for them.

They are made by the package's own code from its tables, which needs no other package.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

COMPLETIONS = {
    "bash": "bash-completion/completions/userspace-proxy",
    "zsh": "zsh/site-functions/_userspace-proxy",
    "fish": "fish/vendor_completions.d/userspace-proxy.fish",
}
"""Where shells look, below ``share`` of a prefix such as ``/usr/local``."""


class Texts(BuildHookInterface[Any]):
    """Writes the files for the time of one build."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files; an editable install has none, because they would age."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        for path, text in made_texts(Path(self.root)).items():
            file = Path(self._folder.name, path)
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(file)] = path

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the files."""
        if version != "editable":
            self._folder.cleanup()


def made_texts(root: Path) -> dict[str, str]:
    """Return the texts by their paths in the prefix."""
    sys.path.insert(0, str(root))
    from userspace_proxy.cli.command_table import COMMANDS, SUMMARY
    from userspace_proxy.cli.completion import completion_script
    from userspace_proxy.cli.man import man_page

    commands = tuple(COMMANDS.values())
    texts = {
        f"share/{path}": completion_script(shell, commands) for shell, path in COMPLETIONS.items()
    }
    return {"share/man/man8/userspace-proxy.8": man_page(SUMMARY, commands), **texts}
