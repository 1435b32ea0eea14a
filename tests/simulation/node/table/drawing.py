"""Draws a plan from a seed: some features, a node, and steps in which they meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

from userspace_proxy.model import Frontend, Protocol
from userspace_proxy.steering.base import REFUSE, Affinity, EndpointChoice, KernelTarget, Target

from ..netlink_routes import Link
from . import plan as p
from .drawing_roles import pod_link, with_roles
from .drawing_take_overs import with_take_overs
from .drifting import DRIFTS, FOREIGN, OF_ELEMENTS
from .plan import Plan, Step, TableNode

FEATURES = (
    "kernel path", "affinity", "networks", "source hash", "refused", "clients", "drift",
    "drift within", "foreign", "refusals", "lost answers", "queries fail", "slow", "lost events",
    "restarts", "deaths", "links", "small parts", "late events", "lacks", "small buffer",
    "forwarding", "ports dialled", "cleaned up", "unnumbered", "neighbour", "crowds", "takers",
    "unrest", "begun anew", "shortages",
)  # fmt: skip
_RARE = {
    "small buffer": 0.06, "lacks": 0.15, "slow": 0.15, "lost answers": 0.16, "neighbour": 0.2,
    "crowds": 0.3, "takers": 0.2, "unrest": 0.25, "begun anew": 0.2, "shortages": 0.15,
}  # fmt: skip
_NETWORKS = {4: ("10.244.0.0/16", "10.1.0.0/16"), 6: ("fd00:244::/32", "fd00:1::/64")}
_FAULTS = {
    "refusals": ("refusal", "refused message", "later refusal", "conntrack"),
    "lost answers": ("lost answer",),
    "queries fail": ("query", "rehash", "routes"),
    "slow": ("slow",),
    "lost events": ("lost events",),
    "unrest": ("unrest",),
    "shortages": ("sockets",),
}


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    rng = Random(seed)
    features = frozenset(f for f in FEATURES if rng.random() < _RARE.get(f, 0.45))
    node = _node(rng, features)
    drawer = _Drawer(rng, features)
    steps = [*drawer.before_all(), drawer.apply()]
    for _ in range(rng.randint(4, 22)):
        steps += drawer.step()
    if {"drift", "drift within"} <= features:
        steps += drawer.last_drifts()
    if {"drift", "neighbour"} <= features:
        steps += drawer.last_listing()
    if {"drift", "lost answers", "clients"} <= features:
        steps += drawer.last_answer()
    if {"small buffer", "kernel path"} <= features:
        steps += drawer.last_parts()
    plan = with_take_overs(Plan(seed, features, node, tuple(steps)), drawer.kernel_target)
    # Links change while one steering serves.
    return plan if plan.takes_over else with_roles(plan)


def _node(rng: Random, features: frozenset[str]) -> TableNode:
    lacks: tuple[str, ...] = ()
    if "lacks" in features:
        lacks = (rng.choice(("socket", "set counter", "element counter")),)
    return TableNode(
        links=_links(features),
        part_messages=rng.randint(1, 4) if {"small parts", "neighbour"} & features else 30,
        elements_per_message=rng.randint(1, 4),
        event_calls=rng.choice((1, 5, 30, 150)) if "late events" in features else 0,
        lacks=lacks,
        send_buffer_bytes=rng.randint(16_000, 30_000) if "small buffer" in features else 425_984,
        listing_cpu_s=rng.choice((0.0, 0.01, 0.06)) if "unrest" in features else 0.0,
        proxy_name=rng.choice(("", "", "edge", "a name with spaces")),
    )


def _links(features: frozenset[str]) -> tuple[Link, ...]:
    own = () if "unnumbered" in features else ("169.254.1.1/32",)
    return (
        _uplink(p.FIRST_ADDRESSES if "links" in features else (), has_best=not own),
        pod_link(p.POD_LINK, 2, own),
        pod_link(p.OTHER_POD_LINK, 3, own),
    )


def _uplink(first: Sequence[str], *, has_best: bool) -> Link:
    best = (f"{p.NODE_ADDRESSES[0]}/16",) if has_best else ()
    before = tuple(f"{ip}/{64 if ':' in ip else 16}" for ip in first)
    addresses = (*before, "10.1.0.1/16", *best, "fd00:1::1/64", "fe80::2/64")
    return Link(p.UPLINK, "eth0", addresses=addresses, has_gateway=True)


class _Drawer:
    """Draws steps one after another."""

    def __init__(self, rng: Random, features: frozenset[str]) -> None:
        self._rng = rng
        self._has = features
        self._last: dict[Frontend, Target] = {}
        self._drifts = [d for d in DRIFTS if d not in FOREIGN]
        self._clients: list[Step] = []

    def apply(self) -> Step:
        rng = self._rng
        some = rng.sample(p.FRONTENDS, rng.randint(0, len(p.FRONTENDS)))
        targets = {one: self._target(one) for one in some}
        for one in self._last:
            if one in targets and rng.random() < 0.5:
                targets[one] = self._last[one]
        self._last = targets
        return Step(p.APPLY, tuple(targets.items()))

    def before_all(self) -> list[Step]:
        """Return the tables of programs that were there first, which listings begin with."""
        rng = self._rng
        if not self._has & {"foreign", "neighbour"}:
            return []
        names = rng.choices(FOREIGN[:2], k=rng.randint(0, 3))
        return [Step(p.DRIFT, name=name, number=rng.randrange(1000)) for name in names]

    def step(self) -> list[Step]:
        """Return one step of the product, and what happens before or within it."""
        rng = self._rng
        steps: list[Step] = []
        steps += self._before()
        if "crowds" in self._has and rng.random() < 0.3:
            return steps + self._crowd()
        if "takers" in self._has and rng.random() < 0.15:
            change = self._change() if rng.random() < 0.7 else Step(p.CHANGE)
            return [*steps, replace(change, kind=p.TAKE, number=rng.randrange(1000))]
        if "refusals" in self._has and rng.random() < 0.1:
            return steps + self._refused_repair()
        draw = rng.random()
        if draw < 0.35:
            change = self._change()
            steps.append(change)
            if rng.random() < 0.8:
                steps.append(Step(p.FORGET))
        elif draw < 0.5:
            steps.append(self.apply())
        elif draw < 0.8:
            steps += [Step(p.LATER, seconds=1.0), Step(p.REPAIR)]
        elif draw < 0.88:
            steps.append(Step(p.COUNT))
        elif draw < 0.94 and self._has & {"restarts", "shortages"}:
            kind = rng.choice(("close", "kill"))
            port = rng.choice((*p.REFUSE_PORTS, 0, 0))
            if "shortages" in self._has:
                steps.append(Step(p.FAULT, name="sockets", number=rng.randrange(1000)))
            steps += [Step(p.RESTART, name=kind, port=port), self.apply()]
        elif draw < 0.97 and "cleaned up" in self._has:
            steps += [Step(p.CLEAN_UP), self.apply()]
        else:
            steps.append(Step(p.LATER, seconds=rng.choice((0.1, 5.0, 70.0))))
        return steps

    def last_drifts(self) -> list[Step]:
        """Return a drift, and another one of the same table while the first one is put right.

        Nothing that follows would hide that it went unseen.
        """
        rng = self._rng
        number, names = rng.randrange(1000), rng.choices(OF_ELEMENTS, k=2)
        return [
            Step(p.DRIFT, name=names[0], number=number),
            Step(p.DRIFT, name=names[1], number=number, within=rng.randint(10, 60)),
            Step(p.REPAIR),
        ]

    def last_listing(self) -> list[Step]:
        """Return a drift, and tables that go while the product lists its own behind them.

        A listing continues at a place in a list, so it lacks what moved to the front.
        """
        rng = self._rng
        number, gone = rng.randrange(1000), range(5, 45)
        return [
            *(Step(p.DRIFT, name=FOREIGN[0], number=number + one) for one in range(3)),
            Step(p.DRIFT, name="delete table", number=number),
            Step(p.REPAIR),
            Step(p.LATER, seconds=1.0),
            Step(p.REPAIR),
            Step(p.DRIFT, name=rng.choice(OF_ELEMENTS), number=number),
            *(Step(p.DRIFT, name=FOREIGN[2], within=one) for one in sorted(rng.sample(gone, 3))),
            Step(p.REPAIR),
        ]

    def last_answer(self) -> list[Step]:
        """Return a drift that clients meet, and a repair whose answer is lost."""
        rng = self._rng
        drifts = [one for one in self._drifts if one != "policy"]
        drifts = list(OF_ELEMENTS) if rng.random() < 0.6 else drifts
        number = rng.randrange(1000)
        clients = [self._silent_client(one) for one in self._last]
        return [
            Step(p.REPAIR),
            Step(p.DRIFT, name=rng.choice(drifts), number=number),
            *clients,
            Step(p.FAULT, name="lost answer", number=rng.randrange(1000)),
            Step(p.REPAIR),
            *(replace(one, port=one.port + 10) for one in clients),
            Step(p.LATER, seconds=1.0),
            Step(p.REPAIR),
            Step(p.COUNT),
        ]

    def last_parts(self) -> list[Step]:
        """Return a change that takes several transactions, of which not all are accepted.

        Or a repair that does, because what differs is refused alone; clients have met that.
        """
        rng = self._rng
        faults = [Step(p.FAULT, name=rng.choice(("part", "lost part")), number=rng.randrange(1000))]
        changes = [self._apply_all()]
        if rng.random() < 0.5:
            change = self._apply_all()
        else:
            drift = Step(p.DRIFT, name=rng.choice(OF_ELEMENTS), number=rng.randrange(1000))
            refusal = Step(p.FAULT, name="refusal", number=0)
            changes += [Step(p.REPAIR), drift, *(self._silent_client(one) for one in self._last)]
            # The next last.
            faults, change = [*faults, refusal], Step(p.REPAIR)
        clients = [self._silent_client(one) for one in self._last]
        return [*changes, *faults, change, *clients, Step(p.LATER, seconds=1.0), Step(p.REPAIR)]

    def _refused_repair(self) -> list[Step]:
        """Return steps in which a repair follows a link, or opens a port, and that is refused.

        Alone, with all that differs, and with the whole table: a later one must do it.
        """
        rng = self._rng
        rest = [Step(p.LATER, seconds=1.0), Step(p.REPAIR)]
        refusal = Step(p.FAULT, name="refusal", number=2 + 3 * rng.randrange(300))
        if "links" in self._has and rng.random() < 0.5:
            new = Step(p.LINK, link=pod_link(p.NEW_POD_LINK, 9, ()))
            return [Step(p.UNLINK, number=p.NEW_POD_LINK), *rest, new, refusal, *rest, *rest]
        return [self._change(), Step(p.FORGET), *rest, refusal, *rest, *rest]

    def _apply_all(self) -> Step:
        """Return a step that steers all frontends, to endpoints."""
        self._last = {one: self.kernel_target(one) for one in p.FRONTENDS}
        return Step(p.APPLY, tuple(self._last.items()))

    def _before(self) -> list[Step]:
        rng, has, steps = self._rng, self._has, []
        if "clients" in has:
            steps += [self._client() for _ in range(rng.randint(0, 3))]
            steps += self._client_that_returns()
        if "neighbour" in has:
            steps += self._neighbour()
        if "drift" in has and rng.random() < 0.3:
            if "drift within" in has and rng.random() < 0.3:
                # The next one may happen while this one is put right.
                steps.append(
                    Step(p.DRIFT, name=rng.choice(OF_ELEMENTS), number=rng.randrange(1000))
                )
            within = rng.randint(1, 60) if "drift within" in has and rng.random() < 0.5 else 0
            name = rng.choice(self._drifts)
            steps.append(Step(p.DRIFT, name=name, number=rng.randrange(1000), within=within))
            if "clients" in has:
                # What they begin now may lead anywhere.
                steps += [self._client() for _ in range(rng.randint(0, 4))]
        if "foreign" in has and rng.random() < 0.3:
            within = rng.choice((0, rng.randint(1, 60)))
            name = rng.choice(FOREIGN)
            steps.append(Step(p.DRIFT, name=name, number=rng.randrange(1000), within=within))
        for feature, names in _FAULTS.items():
            if feature in has and rng.random() < 0.25:
                within = rng.choice((0, rng.randint(1, 40)))
                name = rng.choice(names)
                steps.append(Step(p.FAULT, name=name, number=rng.randrange(1000), within=within))
        if "deaths" in has and rng.random() < 0.12:
            steps.append(Step(p.DIE, within=rng.randint(1, 70)))
        if "links" in has and rng.random() < (0.35 if "unrest" in has else 0.2):
            steps += self._lost_address() if rng.random() < 0.2 else [self._link()]
        if "forwarding" in has and rng.random() < 0.1:
            steps.append(Step(p.FORWARDING))
        return steps

    def _neighbour(self) -> list[Step]:
        """Return what a program does that changes tables of its own all the time."""
        rng = self._rng
        return [
            Step(p.DRIFT, name=rng.choice(FOREIGN), number=rng.randrange(1000), within=within)
            for within in sorted(rng.sample(range(1, 60), rng.randint(2, 6)))
        ]

    def _crowd(self) -> list[Step]:
        """Return steps in which clients of a frontend end in different ways, and it changes.

        Or it leaves and returns, and its connections are counted before and after that. Or it
        leaves the kernel path, and its endpoints change then.
        """
        rng = self._rng
        if not self._last:
            return []
        frontend = rng.choice(list(self._last))
        number, version = p.FRONTENDS.index(frontend), 6 if ":" in frontend.ip else 4
        client = rng.choice([n for n, one in enumerate(p.CLIENTS) if one.version == version])
        fates = ("answer", "reset", "silent", "answer")
        crowd = [
            Step(p.CLIENT, number=number, client=client, port=50_020 + index, name=fate)
            for index, fate in enumerate(rng.sample(fates, rng.randint(2, 4)))
        ]
        before = self._last[frontend]
        if isinstance(before, KernelTarget) and rng.random() < 0.3:
            off = replace(before, is_on=False)
            other = replace(self.kernel_target(frontend), port=before.port, is_on=False)
            changes = [Step(p.CHANGE, ((frontend, one),)) for one in (off, other)]
            self._last[frontend] = other
            return [*crowd, changes[0], Step(p.FORGET), changes[1], Step(p.FORGET)]
        if isinstance(before, KernelTarget) and "drift" in self._has and rng.random() < 0.3:
            return self._recounted(crowd)
        if rng.random() < 0.5:
            self._last[frontend] = self._target(frontend)
            change = Step(p.CHANGE, ((frontend, self._last[frontend]),))
            return [*crowd, change, Step(p.FORGET)]
        leaves = Step(p.CHANGE, gone=(frontend,))
        if rng.random() < 0.4:
            # Before what it had is removed.
            self._last[frontend] = self._target(frontend)
            back = Step(p.CHANGE, ((frontend, self._last[frontend]),))
            return [*crowd, leaves, back, Step(p.FORGET)]
        if "refusals" in self._has and rng.random() < 0.5:
            # It stays, once its connections were forgotten.
            refusal = Step(p.FAULT, name="later refusal", number=rng.randrange(1000))
            return [*crowd, Step(p.COUNT), refusal, leaves, Step(p.COUNT)]
        returns = Step(p.CHANGE, ((frontend, before),))
        others = [replace(one, port=one.port + 10) for one in crowd]
        return [*crowd, Step(p.COUNT), leaves, Step(p.FORGET), returns, *others, Step(p.COUNT)]

    def _recounted(self, crowd: list[Step]) -> list[Step]:
        """Return steps in which counters begin anew, and count as much as they had before."""
        rest = [Step(p.LATER, seconds=1.0), Step(p.REPAIR)]
        flush = Step(p.DRIFT, name="flush counted", number=self._rng.randrange(1000))
        others = [replace(one, port=one.port + 10) for one in crowd]
        return [*crowd, Step(p.COUNT), flush, *rest, *rest, *others, Step(p.COUNT)]

    def _client(self) -> Step:
        rng = self._rng
        if self._clients and rng.random() < 0.3:
            return rng.choice(self._clients)
        step = Step(
            p.CLIENT,
            number=rng.randrange(len(p.FRONTENDS)),
            client=rng.randrange(len(p.CLIENTS)),
            port=rng.randint(50_000, 50_003),
            name=rng.choice(("answer", "reset", "silent")),
        )
        self._clients.append(step)
        return step

    def _silent_client(self, frontend: Frontend) -> Step:
        """Return a step in which a client dials a frontend, and isn't answered by an endpoint."""
        rng, version = self._rng, 6 if ":" in frontend.ip else 4
        client = rng.choice([n for n, one in enumerate(p.CLIENTS) if one.version == version])
        number, port = p.FRONTENDS.index(frontend), rng.randint(50_030, 50_033)
        return Step(p.CLIENT, number=number, client=client, port=port, name="silent")

    def _client_that_returns(self) -> list[Step]:
        """Return steps of a client with session affinity that connects anew within the time-out."""
        rng = self._rng
        pinned = [
            index
            for index, one in enumerate(p.FRONTENDS)
            if isinstance(target := self._last.get(one), KernelTarget)
            and target.affinity is not None
            and target.is_on
        ]
        if not pinned or rng.random() < 0.5:
            return []
        first = replace(self._client(), number=rng.choice(pinned))
        again = replace(first, number=rng.choice(pinned), port=first.port + 10)
        return [first, Step(p.LATER, seconds=rng.choice((0.0, 1.0, 2.0))), again]

    def _link(self) -> Step:
        rng = self._rng
        if rng.random() < 0.3:
            has_best = "unnumbered" in self._has and rng.random() < 0.5
            first = [ip for ip in p.FIRST_ADDRESSES if rng.random() < 0.4]
            return Step(p.LINK, link=_uplink(first, has_best=has_best))
        own = rng.choice(((), ("169.254.1.1/32",)))
        if rng.random() < 0.3:
            return Step(p.UNLINK, number=p.NEW_POD_LINK)
        return Step(p.LINK, link=pod_link(p.NEW_POD_LINK, 9, own))

    def _lost_address(self) -> list[Step]:
        """Return steps of a client outside, whose flow leads to an address that is lost then."""
        rng = self._rng
        number = rng.choice([n for n, f in enumerate(p.FRONTENDS) if f.protocol is Protocol.UDP])
        is_ipv6 = ":" in p.FRONTENDS[number].ip
        outside = [n for n, one in enumerate(p.CLIENTS) if one.ip in p.OUTSIDE]
        client = next(n for n in outside if (p.CLIENTS[n].version == 6) == is_ipv6)
        has_best = "unnumbered" in self._has
        kept = [ip for ip in p.FIRST_ADDRESSES if (":" in ip) != is_ipv6]
        return [
            Step(p.LINK, link=_uplink(p.FIRST_ADDRESSES, has_best=has_best)),
            replace(self._client(), number=number, client=client),
            Step(p.LINK, link=_uplink(kept, has_best=has_best and is_ipv6)),
        ]

    def _change(self) -> Step:
        rng = self._rng
        changed = {one: self._target(one) for one in rng.sample(p.FRONTENDS, rng.randint(0, 3))}
        gone = tuple(one for one in self._last if rng.random() < 0.2)
        self._last = {f: t for f, t in self._last.items() if f not in gone} | changed
        return Step(p.CHANGE, tuple(changed.items()), gone)

    def _target(self, frontend: Frontend) -> Target:
        rng, has = self._rng, self._has
        before = self._last.get(frontend)
        if isinstance(before, KernelTarget) and rng.random() < 0.4:
            return self._changed(before, frontend)
        if "kernel path" in has and rng.random() < 0.6:
            return self.kernel_target(frontend)
        if "refused" in has and rng.random() < 0.3:
            return REFUSE
        return rng.choice(p.PORTS)

    def _changed(self, before: KernelTarget, frontend: Frontend) -> Target:
        rng = self._rng
        if rng.random() < 0.4:
            return replace(before, is_on=not before.is_on)
        return replace(self.kernel_target(frontend), port=before.port)

    def kernel_target(self, frontend: Frontend) -> KernelTarget:
        """Return endpoints for a frontend."""
        rng, has = self._rng, self._has
        version = 6 if ":" in frontend.ip else 4
        choices = []
        if "networks" in has:
            some = rng.sample(_NETWORKS[version], rng.randint(0, 2))
            choices += [self._choice(version, (network,)) for network in some]
        if not choices or rng.random() < 0.7:
            choices.append(self._choice(version, None))
        affinity = None
        if "affinity" in has and rng.random() < 0.6:
            affinity = Affinity(
                f"service-{frontend.port % 3}-{version}", rng.choice((3, 60, 10_800))
            )
        return KernelTarget(
            rng.choice(p.PORTS),
            tuple(choices),
            affinity,
            is_on=rng.random() < 0.85,
            by_client="source hash" in has and rng.random() < 0.5,
        )

    def _choice(self, version: int, networks: tuple[str, ...] | None) -> EndpointChoice:
        rng = self._rng
        endpoints = p.ENDPOINTS[version]
        some = rng.choices(endpoints, k=rng.randint(1, 4))
        if rng.random() < 0.7:
            some = list(dict.fromkeys(some))
        return EndpointChoice(tuple(some), networks)
