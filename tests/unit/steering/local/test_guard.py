from __future__ import annotations

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.local.desired import DesiredState
from userspace_proxy.steering.local.guard import NoGuard

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
LOOPBACK = Frontend("127.0.0.9", 80, Protocol.TCP)


def test_without_privileges_only_the_nodes_own_addresses_are_served():
    desired = DesiredState(["fd00:96::/112"])
    guard = NoGuard(desired)
    guard.change(desired.change({WEB: 80, LOOPBACK: 80}))
    assert {network: str(cause) for network, cause in desired.refused.items()} == {
        network: f"cannot route {network} to this node: NET_ADMIN is missing "
        "(run as root or grant NET_ADMIN; loopback addresses need nothing)"
        for network in ("10.96.7.1/32", "fd00:96::/112")
    }
    assert list(map(guard.look(), (WEB, LOOPBACK))) == [False, True]
    assert guard.put_right() == 0
    guard.clean_up()
