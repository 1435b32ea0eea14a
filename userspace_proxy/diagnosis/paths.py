"""How new connections to a Service port travel, as it is shown."""

from __future__ import annotations

from typing import NamedTuple

from ..facts import ProbesFacts
from ..facts.units import plural, seconds_in_words
from ..model import DataPath
from ..policy import PathDecision

UNKNOWN = "bytes and failures aren't known on this path"


class PathView(NamedTuple):
    """The path of a Service port."""

    now: DataPath = DataPath.USERSPACE
    """That of new connections."""
    since: float = 0.0
    """Unix time at which they began to take it; 0 if unknown."""
    why: str = ""
    """The reason, as a clause; empty for the default."""
    kernel_connections: int | None = None
    """Connections (UDP: flows) that the kernel has led straight to endpoints since the start; None
    where it never could, or doesn't count them."""

    def follow(self, chosen: PathDecision, at: float) -> PathView:
        """Return it with a path that came into force at a Unix time, unless it was before."""
        since = self.since if chosen.path is self.now and self.since else at
        return self._replace(now=chosen.path, since=since, why=chosen.why)


DEFAULT = PathView()


def probes_in_words(probes: ProbesFacts) -> str:
    """Return how many endpoints of all Services are probed, and how often; empty for none."""
    if not probes.endpoints:
        return ""
    count = plural(probes.endpoints, "endpoint")
    budget = f"at most {probes.per_second:,} probes a second"
    every = f"every {probes.interval_s:.3g} s while they answer, " if probes.interval_s else ""
    return f"{count} probed, {every}{budget}"


def path_in_words(path: str, why: str, since: float, now: float) -> str:
    """Return a path, for how long it has been that one, and why."""
    age = f" for {seconds_in_words(max(1, round(now - since)))}" if since else ""
    return f"{path}{age}{f': {why}' if why else ''}"


def counted_in_words(path: str, kernel_connections: int | None, protocol: str) -> str:
    """Return what is known of the connections that the kernel has led straight to endpoints.

    Args:
        path: That of new connections.
        kernel_connections: As in :class:`PathView`.
        protocol: ``TCP`` or ``UDP``.

    Returns:
        Clauses; empty where there is nothing to say.
    """
    is_in_kernel = path == DataPath.KERNEL
    if kernel_connections is None:
        return f"this kernel doesn't count connections there; {UNKNOWN}" if is_in_kernel else ""
    if not kernel_connections and not is_in_kernel:
        return ""
    taken = plural(kernel_connections, "flow" if protocol == "UDP" else "connection")
    if not is_in_kernel:
        return f"{taken} took the kernel path since the start"
    return f"{taken} since the start; {UNKNOWN}"
