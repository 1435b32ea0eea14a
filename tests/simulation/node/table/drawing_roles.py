"""Draws what a node's links lead to, and how that changes: to containers only, or to others, too.

A link of the first two pods is a pair with a container, or a bridge. Bridges get and lose ports;
either gets and loses networks and gateways of both families, and addresses with them or without.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from random import Random

from ..netlink_routes import Link
from . import plan as p
from .link_roles import BRIDGE, CONTAINER, MACHINE, SPANNING
from .plan import Plan, Step

# So that the other steps of a seed are the same with it and without.
_OWN_DRAWS = 0x201E5
_SHARE = 0.5
_PODS = {p.POD_LINK: 2, p.OTHER_POD_LINK: 3}
_PORTS = (6, 7)
# Of hardware, a VLAN, and several links as one; then those that don't lead out of the node.
_OUTWARD, _INWARD = ("", "vlan", "bond"), (CONTAINER, MACHINE)
_NETWORKS = ("10.77.{}.0/24", "fd00:77:{}::/64")
_BEYOND = (
    ("192.168.7.0/24", "10.77.{}.9"),
    ("192.168.8.0/24", "fe80::9"),
    ("fd00:78::/64", "fe80::9"),
    ("::/0", "fe80::9"),
    ("192.168.9.0/24", "10.77.{}.8 10.77.{}.9"),
    ("::/0", "fe80::8 fe80::9"),
)
_ADDRESS = "fd00:79:{}::7/128"


def pod_link(number: int, pod: int, own: tuple[str, ...]) -> Link:
    """Return the link of a pod of this node."""
    networks = f"10.244.1.{pod}/32", f"fd00:244:1::{pod}/128"
    addresses = (*own, f"fe80::{number}/64")
    return Link(number, f"veth{number}", "veth", addresses=addresses, networks=networks)


@dataclass(frozen=True)
class _Shape:
    """What a link is like."""

    kind: str = CONTAINER
    networks: tuple[str, ...] = ()
    """Besides the addresses of its pod."""
    beyond: tuple[tuple[str, str], ...] = ()
    has_gateway: bool = False
    has_address: bool = False
    """Besides those that it has had from the start."""
    spans_nodes: bool = False
    is_up: bool = True

    def link(self, number: int, own: tuple[str, ...]) -> Link:
        """Return the link.

        Args:
            own: Its IPv4 addresses.
        """
        first = pod_link(number, _PODS[number], own)
        more = (_ADDRESS.format(number),) if self.has_address else ()
        is_bridge = self.kind == BRIDGE
        if not self.is_up:
            return replace(first, kind=self.kind, is_up=False, addresses=own, networks=())
        return replace(
            first,
            name=SPANNING if self.spans_nodes else (f"br{number}" if is_bridge else first.name),
            kind=self.kind,
            addresses=(*first.addresses, *more),
            networks=(*first.networks, *(one.format(number) for one in self.networks)),
            beyond=tuple((network, by.format(number, number)) for network, by in self.beyond),
            has_gateway=self.has_gateway,
        )


def with_roles(plan: Plan) -> Plan:
    """Return a plan in which links change what they lead to, or the same one."""
    rng = Random(plan.seed ^ _OWN_DRAWS)
    if "kernel path" not in plan.features or rng.random() >= _SHARE:
        return plan
    drawer = _Drawer(rng, () if "unnumbered" in plan.features else ("169.254.1.1/32",))
    links = {link.number: link for link in plan.node.links}
    links |= {link.number: link for link in drawer.first()}
    steps = list(plan.steps)
    places = sorted(rng.choices(range(1, len(steps) + 1), k=rng.randint(2, 5)))
    for place in places:
        # What was put before it has moved it.
        at = place + len(steps) - len(plan.steps)
        steps[at:at] = drawer.change()
    steps += drawer.change(is_last=True)
    node = replace(plan.node, links=tuple(links.values()))
    return replace(plan, features=plan.features | {"roles"}, node=node, steps=tuple(steps))


class _Drawer:
    """Draws the changes of some links one after another.

    Args:
        own: The IPv4 addresses of each.
    """

    def __init__(self, rng: Random, own: tuple[str, ...]) -> None:
        self._rng = rng
        self._own = own
        self._shapes = {number: _Shape(rng.choice((CONTAINER, BRIDGE))) for number in _PODS}
        self._ports: dict[int, Link] = {}

    def first(self) -> Iterable[Link]:
        """Return the links that there are from the start."""
        return [shape.link(number, self._own) for number, shape in self._shapes.items()]

    def change(self, *, is_last: bool = False) -> list[Step]:
        """Return one change, and perhaps a repair that must know it."""
        rng = self._rng
        number = rng.choice(list(_PODS))
        draw, is_bridge = rng.random(), self._shapes[number].kind == BRIDGE
        if draw < 0.1:
            steps = [Step(p.FORWARDING, number=rng.randrange(len(p.FORWARDED)))]
        elif draw < 0.16:
            steps = [Step(p.WITHOUT_IPV6)]
        elif draw < 0.26:
            steps = self._become_another(number)
        elif draw < 0.62 and is_bridge:
            steps = [self._change_port(number)]
        else:
            steps = [self._change_routes(number)]
        if is_last or rng.random() < 0.4:
            steps += [Step(p.LATER, seconds=2.0), Step(p.REPAIR)]
        return steps

    def _change_port(self, bridge: int) -> Step:
        """Return a step in which a bridge gets a port, perhaps another one's, or loses one."""
        rng = self._rng
        own = [number for number, port in self._ports.items() if port.master == bridge]
        if own and rng.random() < 0.6:
            number = rng.choice(own)
            del self._ports[number]
            return Step(p.UNLINK, number=number)
        number = rng.choice(_PORTS)
        kind = rng.choice(_OUTWARD if rng.random() < 0.6 else _INWARD)
        had = self._ports.get(number)
        port = Link(number, f"port{number}", had.kind if had else kind, master=bridge)
        self._ports[number] = port
        return Step(p.LINK, link=port)

    def _change_routes(self, number: int) -> Step:
        """Return a step in which a link gets a network, a gateway or an address, or loses them."""
        rng, shape = self._rng, self._shapes[number]
        if rng.random() < 0.1:
            shape = replace(shape, is_up=not shape.is_up)
        elif shape.networks or shape.beyond or shape.has_gateway or shape.spans_nodes:
            shape = _Shape(shape.kind, has_address=shape.has_address)
        else:
            what: list[dict[str, object]] = [{"networks": (one,)} for one in 2 * _NETWORKS]
            what += [{"beyond": (one,)} for one in _BEYOND]
            what.append({"has_gateway": True})
            what.append({"spans_nodes": shape.kind == BRIDGE and number == p.POD_LINK})
            shape = replace(shape, **rng.choice(what))  # type: ignore[arg-type]
        # As by DHCP; else the product isn't told.
        is_told = rng.random() < 0.8
        self._shapes[number] = replace(shape, has_address=shape.has_address != is_told)
        return self._put(number)

    def _become_another(self, number: int) -> list[Step]:
        """Return steps in which a link goes, and one of another kind gets its number."""
        kind = CONTAINER if self._shapes[number].kind == BRIDGE else BRIDGE
        self._shapes[number] = _Shape(kind)
        # Its ports stay, without a bridge.
        gone = [port for port, link in self._ports.items() if link.master == number]
        for port in gone:
            del self._ports[port]
        steps = [Step(p.UNLINK, number=one) for one in (*gone, number)]
        if self._rng.random() < 0.4:
            steps.append(Step(p.REPAIR))
        return [*steps, self._put(number)]

    def _put(self, number: int) -> Step:
        return Step(p.LINK, link=self._shapes[number].link(number, self._own))
