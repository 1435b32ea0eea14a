"""What a request asks for, and what its page is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..answer import AllNodes
from ..merged import Merged
from .links import with_query

Q_MAX = 200


@dataclass(frozen=True, slots=True)
class PageRequest:
    """The address of a page."""

    path: str = "/"
    """As it was written, quoted."""
    q: str = ""
    """What is searched for; empty for all."""
    page: int = 1
    """Of a long list, from 1."""
    refresh: bool = True
    """Whether the page reloads itself where scripts are off."""

    @classmethod
    def read(cls, path: str, query: Mapping[str, str]) -> PageRequest:
        """Return what a request asks for; invalid values mean the default."""
        page = query.get("page", "")
        is_number = page.isascii() and page.isdigit() and 0 < len(page) < 10
        return cls(
            path,
            query.get("q", "").strip()[:Q_MAX],
            max(int(page), 1) if is_number else 1,
            query.get("refresh") != "off",
        )

    def link(self, **changes: object) -> str:
        """Return the address with some fields changed."""
        wanted = replace(self, **changes)  # type: ignore[arg-type]
        page = wanted.page if wanted.page > 1 else 0
        refresh = "" if wanted.refresh else "off"
        return with_query(wanted.path, {"q": wanted.q, "page": page, "refresh": refresh})


@dataclass(frozen=True, slots=True)
class ClusterLook:
    """All nodes at one moment, as pages show them."""

    all_nodes: AllNodes
    merged: Merged
    now: float
    """Unix time of this machine."""
    cluster: str = ""
    """The cluster, as its user calls it."""
