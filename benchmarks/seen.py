"""Checks the client address that backends see on a way, so that rows measure what they name."""

from __future__ import annotations

from userspace_proxy.errors import SandboxError

from .generators import hold
from .sites import PORTS, Site
from .way import Way

HELD_S = 1.0


def check_client_address(way: Way) -> None:
    """Hold one connection through a running way, and check its source address at the pods.

    Raises:
        SandboxError: It is the client's address although the way doesn't preserve it, or vice
            versa; or no pod has a connection.
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
    """Return the source addresses of connections to the pods' echo."""
    command = ["ss", "-Htn", "state", "established", f"sport = :{PORTS['echo'].back}"]
    lines = [line for pod in site.pods for line in pod.run(command).stdout.splitlines()]
    # The fields: receive queue, send queue, local address, peer address.
    return {line.split()[3].rpartition(":")[0] for line in lines}
