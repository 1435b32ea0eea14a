"""Provides the functions of ``hatch_build.py`` about the repository's URL to tools and tests.

That file can't be imported: a build runs it alone, and the test kit has a file of the same name.
"""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOUND = runpy.run_path(str(ROOT / "hatch_build.py"))

LinksFrom = Callable[[str], Callable[[str], str]]
"""Returns, for a page, a function that makes the page's links absolute."""

repository: str = _FOUND["declared_repository"](ROOT)
tag_of: Callable[[str], str] = _FOUND["tag_of"]
links_from: Callable[[str, str, str], Callable[[str], str]] = _FOUND["links_from"]
with_links: Callable[[str, Callable[[str], str]], str] = _FOUND["with_links"]
outside_fences: Callable[[str, Callable[[str], str]], str] = _FOUND["outside_fences"]
