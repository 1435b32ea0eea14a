"""What a release builds the image with: the arguments from which its labels are made."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime

from tests.tools.clones import ROOT, committed_at, git
from userspace_proxy import __version__


def release_arguments() -> dict[str, str]:
    """Return the values of ``--build-arg`` for the last commit."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return {
        "VERSION": __version__,
        "REVISION": git(ROOT, "rev-parse", "HEAD"),
        "CREATED": datetime.fromtimestamp(committed_at(), UTC).isoformat(),
        "SOURCE": project["tool"]["userspace-proxy"]["repository"],
    }
