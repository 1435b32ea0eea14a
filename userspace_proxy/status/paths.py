"""How new connections to a Service port travel, as it is shown."""

from __future__ import annotations

from typing import NamedTuple

from ..model import Path
from .units import seconds_in_words

METRIC_HELP = (
    "1 for a Service port whose new connections don't pass through the proxy: no series counts them"
)


class PathView(NamedTuple):
    """The path of a Service port."""

    now: Path = Path.USERSPACE
    """That of new connections."""
    since: float = 0.0
    """Unix time at which they began to take it; 0 if unknown."""
    why: str = ""
    """The reason, as a clause; empty for the default."""

    @property
    def is_default(self) -> bool:
        """Whether there is nothing to show."""
        return self.now is Path.USERSPACE and not self.why


DEFAULT = PathView()


class ProbesView(NamedTuple):
    """The probes that decide the path of Services with ``auto``."""

    endpoints: int = 0
    """How many are probed."""
    interval_s: float = 0.0
    """Average seconds between two probes of an endpoint."""
    per_second: int = 0
    """The budget: more probes never begin in a second; 0: nothing was probed yet."""
    sent: int = 0
    failed: int = 0
    """Of these, how many the endpoint didn't answer."""


NO_PROBES = ProbesView()


def path_in_words(path: str, why: str, since: float, now: float) -> str:
    """Return a path, for how long it has been that one, and why."""
    age = f" for {seconds_in_words(max(1, round(now - since)))}" if since else ""
    return f"{path}{age}{f': {why}' if why else ''}"
