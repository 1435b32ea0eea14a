"""Checks a built site for dead links and for resources on other hosts.

Unlike the generator, it parses the HTML, so it also checks pictures, files and raw HTML.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from posixpath import dirname, join, normpath
from urllib.parse import unquote, urlsplit

_LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src"}
"""Attributes with a URL that a browser loads without a click."""

_LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "preconnect", "manifest"}
_STYLE_URL = re.compile(r"url\(\s*['\"]?(https?:)?//")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)


@dataclass
class SitePage(HTMLParser):
    """One page of the site, with its links, its loaded resources and its anchors."""

    text: str
    links: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)

    def __hash__(self) -> int:
        return id(self)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collect the references of a tag."""
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        elif tag == "link" and _LOADED_LINKS & set(values.get("rel", "").split()):
            self.loaded.append(values["href"])
        elif tag in _LOADED and _LOADED[tag] in values:
            self.loaded.append(values[_LOADED[tag]])


def problems(root: Path) -> Iterator[str]:
    """Yield one line for each dead link, and for each resource on another host.

    Args:
        root: The folder of one version of the site.
    """
    files = {file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()}
    pages = {
        name: SitePage((root / name).read_text(encoding="utf-8"))
        for name in sorted(files)
        # The links of 404.html are relative to the requested URL, which wasn't found.
        if name.endswith(".html") and name != "404.html"
    }
    for name, page in pages.items():
        for address in page.loaded:
            if _is_remote(address):
                yield f"{name}: {address} is loaded from another host"
            elif problem := _problem_of(name, address, files, pages):
                yield f"{name}: {problem}"
        for address in page.links:
            if not _is_remote(address) and (problem := _problem_of(name, address, files, pages)):
                yield f"{name}: {problem}"
    for name in sorted(files):
        if name.endswith(".css"):
            style = _COMMENT.sub("", (root / name).read_text(encoding="utf-8"))
            if _STYLE_URL.search(style):
                yield f"{name}: something is loaded from another host"


def _is_remote(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.scheme and parts.scheme != "data") or bool(parts.netloc)


def _problem_of(
    page: str, address: str, files: set[str], pages: Mapping[str, SitePage]
) -> str | None:
    """Return the problem with a URL on a page; None if there is none."""
    parts = urlsplit(address)
    if parts.scheme == "data":
        return None
    target = page
    if parts.path:
        target = normpath(join(dirname(page), unquote(parts.path)))
        target = "index.html" if target == "." else target
    if f"{target}/index.html" in files:
        target = f"{target}/index.html"
    if target not in files:
        return f"{address} doesn't exist"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].anchors:
        return f"{address} has no such anchor"
    return None
