"""Checks which client address the backends of a way see: its row must measure what it says."""

from __future__ import annotations

from userspace_proxy.errors import SandboxError

from .generators import hold
from .sites import PORTS, Site
from .way import Way

HELD_S = 1.0


def check_client_address(way: Way) -> None:
    """Hold one connection to a way that answers, and check its address at the pods.

    Raises:
        SandboxError: It is the client's own although the way doesn't preserve it, or vice versa.
    """
    with hold(way, "echo", connections=1, seconds=HELD_S):
        seen = _peers(way.site)
    expected = way.preserves_client_address
    if seen and all((address == str(way.site.client.ip)) is expected for address in seen):
        return
    raise SandboxError(
        f"cannot measure {way.label}: its backends see {', '.join(sorted(seen)) or 'no client'}, "
        f"and {'only' if expected else 'never'} {way.site.client.ip} was expected"
    )


def _peers(site: Site) -> set[str]:
    """Return the addresses from which connections to the pods' echo come."""
    command = ["ss", "-Htn", "state", "established", f"sport = :{PORTS['echo'].back}"]
    lines = [line for pod in site.pods for line in pod.run(command).stdout.splitlines()]
    # Queues, this end, that end.
    return {line.split()[3].rpartition(":")[0] for line in lines}
