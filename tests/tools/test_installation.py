"""No page, example or message installs these packages by name from a package index.

The names aren't registered there: by registering them, anyone could run code as root on nodes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = (
    "*.md",
    "*.yml",
    "Dockerfile",
    "Makefile",
    "docs",
    "examples",
    "userspace_proxy",
    "kubectl-userspace-proxy",
    "pytest-userspace-proxy",
)

_CONTINUED = re.compile(r"\\\n[#\s]*")
_INSTALL = re.compile(r"\b(?:pip[0-9.]*|pipx|uv)\b[^\n]*?\b(?:install|add|run)\b(?P<what>.*)")
# It matches no part of a path, of a wheel's name or of a URL, and no option with a path.
_NAME = re.compile(
    r"(?<![\w./:@=-])(?:(?:kubectl|pytest)[-_.])?userspace[-_.]proxy(?![\w/:-]|\.\w| @ )",
    re.IGNORECASE,
)
_OTHER_FOLDER = re.compile(
    r"(?<!\S)[./]*(?:kubectl|pytest)-userspace-proxy/?(?!\S)|#subdirectory=(?:kubectl|pytest)-user"
)
_NODE_FOLDER = re.compile(r"(?<!\S)'?\.(?:\[|(?!\S))|git\+\w+:[^\s#]+(?!\S)")


def installs_by_name(text: str) -> Iterator[str]:
    """Yield the commands in a text that would install one of these packages from an index.

    Installing only the plugin's or the test kit's folder would fetch the proxy from an index.
    """
    for found in _INSTALL.finditer(_CONTINUED.sub("", text)):
        what = found["what"]
        is_other_alone = bool(_OTHER_FOLDER.search(what)) and not _NODE_FOLDER.search(what)
        if "--no-index" not in what and (_NAME.search(what) or is_other_alone):
            yield found[0]


def files() -> Iterator[Path]:
    for place in PLACES:
        for path in ROOT.glob(place):
            yield from (p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]


def test_no_file_installs_a_package_by_name_from_an_index() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {command}"
        for path in files()
        if path.suffix != ".pyc"
        for command in installs_by_name(path.read_text(encoding="utf-8", errors="replace"))
    }
    assert found == set()
