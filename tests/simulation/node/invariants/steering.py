"""On an idle node, the rules treat clients of each Service address as the newest objects require.

Clients are sent to the proxy or to exactly the endpoints that may serve, or are refused. Clients of
other addresses are unaffected.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...machine.nf_tables_packets import Kind, in_words
from ..claims import Dialled
from ..families import like
from ..plan import NODE_IP, NODE_PORTS
from ..readings import has_affinity, preference
from .base import Invariant

# The weight of endpoints whose slice sets none.
_WEIGHT = 100
_OUTSIDE, _FAR, _POD = "10.3.0.1", "10.3.9.2", "10.2.1.77"


class Steering(Invariant):
    """Judges the kernel's rules, as the module describes."""

    NAME = "the kernel at rest"

    def check_rest(self) -> None:
        world = self._world
        self.check(world.agent is not None and world.agent.is_serving, "no agent serves")
        for at in sorted(world.cluster.dialled):
            if at in world.cluster.last.frontends:
                self._check_frontend(at)
            else:
                for ip in _clients(at[0]):
                    where = in_words(world.kernel.verdict(ip, at))
                    what = f"{at} is no Service's, and is led to {where}"
                    is_other_port = at[0] in world.cluster.last.only_cluster_ips
                    is_refused = world.kernel.verdict(ip, at).kind is Kind.REFUSED
                    is_right = is_other_port and is_refused
                    self.check(is_right or not world.kernel.is_led(ip, at), what)
        self._check_node_ports()

    def _check_frontend(self, at: Dialled) -> None:
        world, truth = self._world, self._world.cluster.last
        # Include the node's own connections, whose source is the frontend's address: source ranges
        # may admit them, and endpoints on other nodes serve them, too.
        may = [truth.expected(ip, at) for ip in (at[0], *_clients(at[0]))]
        slices = (item for key, item in truth.objects.items() if key[0] == "EndpointSlice")
        has_weights = any(preference(item)[0] != _WEIGHT for item in slices)
        is_refused = not any(e.endpoints for e in may) and all(e.may_be_refused for e in may)
        for ip in _clients(at[0]):
            outcome, expected = world.kernel.verdict(ip, at), truth.expected(ip, at)
            what = f"{at} is led from {ip} to {in_words(outcome)}, may {expected}"
            if is_refused:
                self.check(outcome.kind is Kind.REFUSED, what)
            elif outcome.kind is Kind.TO_ENDPOINT:
                led = world.kernel.led_to(ip, at)
                is_free = not has_affinity(truth.frontends[at].service) and not has_weights
                is_right = led == expected.endpoints if is_free else led <= expected.endpoints
                self.check(is_right, f"{at} is led from {ip} to {sorted(led)}, may {expected}")
            else:
                self.check(outcome.kind is Kind.TO_PORT, what)

    def _check_node_ports(self) -> None:
        world, truth = self._world, self._world.cluster.last
        numbers = {port.port for port in world.machine.ports if port.port in NODE_PORTS}
        wanted = {at[1] for at in truth.frontends if at[1] in NODE_PORTS}
        wanted |= {*truth.open_health_ports}
        what = f"node ports {sorted(numbers)} are reserved, wanted are {sorted(wanted)}"
        self.check(numbers == wanted, what)


def _clients(ip: str) -> Iterator[str]:
    """Yield addresses of the node and of clients outside and inside, in an address's family."""
    yield from (like(each, ip) for each in (NODE_IP, _OUTSIDE, _FAR, _POD))
