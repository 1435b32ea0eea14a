"""Draws plans: which features a run has, what is written, and what breaks.

Rule 1: a run has few kinds of faults, so that each meets quiet ones (swarm).
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from .plan import CROWDED, NODE, Plan, Step

_NAMESPACES = ("default", "shop", CROWDED)
_FAULTS = (
    "cut",
    "end",
    "stall",
    "silence",
    "refuse",
    "cut-answer",
    "broken-list",
    "restart",
    "compact",
    "restore",
    "partition",
    "slow",
    "touch",
    "agent-restart",
)
_SETTINGS = (
    "pages",
    "pieces",
    "lag",
    "two-servers",
    "repeats",
    "shares",
    "invalid",
    "events",
    "nodes",
    "one-namespace",
    "short-watches",
    "no-bookmarks",
    "batches",
    "large",
    "families",
)
_KINDS = ("Service", "Service", "EndpointSlice", "EndpointSlice", "Node")
_CONDITIONS: tuple[dict[str, bool | None], ...] = (
    {},
    {"ready": True},
    {"ready": None, "serving": None, "terminating": None},
    {"ready": False, "terminating": True},
    {"ready": False, "serving": False, "terminating": False},
    {"ready": False, "serving": True, "terminating": True},
)
_CODES = (429, 500, 503, 502, 401, 403, 404)


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    return _Drawing(seed).plan()


class _Drawing:
    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = rng = Random(seed)
        faults = rng.sample(_FAULTS, rng.choice((0, 1, 1, 2, 2, 3, 4, 6)))
        self.features = {*faults, *(each for each in _SETTINGS if rng.random() < 0.3)}
        self.faults = [each for each in faults if each != "agent-restart" or rng.random() < 0.7]
        self.chaos_s = rng.choice((5.0, 30.0, 90.0, 300.0, 700.0))
        self.steps: list[Step] = []
        self.there: set[tuple[str, str, str]] = set()

    def has(self, feature: str) -> bool:
        return feature in self.features

    def plan(self) -> Plan:
        rng, has = self.rng, self.has
        first = [self._item() for _ in range(rng.randint(0, 12))]
        self._draw_steps()
        self._draw_rare_ones()
        self._draw_rarer_ones()
        bookmark_s = rng.choice((5.0, 20.0, 60.0))
        if has("no-bookmarks"):
            bookmark_s = 0.0
        watch_s = rng.choice((5.0, 20.0, 60.0)) if has("short-watches") else 300.0
        silence_s = 2.5 * bookmark_s if bookmark_s and rng.random() < 0.5 else 150.0
        return Plan(
            self.seed,
            frozenset(self.features),
            tuple(sorted(self.steps, key=lambda step: step.at)),
            self.chaos_s,
            servers=2 if has("two-servers") else 1,
            lag_s=rng.choice((0.01, 0.3, 2.0)) if has("lag") else 0.0,
            has_watch_cache=rng.random() < (0.2 if has("pages") else 0.6),
            waits_for_future=rng.random() < 0.5,
            expires_by_status=rng.random() < 0.3,
            has_nulls=rng.random() < 0.5,
            checks_health=rng.random() < 0.5,
            # What is left out is only counted, so a line that comes twice counts twice.
            repeats=has("repeats") and not has("shares"),
            bookmark_s=bookmark_s,
            piece_max=rng.choice((3, 40, 700)) if has("pieces") else 0,
            page_limit=rng.choice((2, 3, 5)) if has("pages") else 500,
            page_max=rng.choice((0, 0, 1)) if has("pages") else 0,
            batch_bytes=rng.choice((1, 400, 1500)) if has("batches") else 64 << 10,
            watch_s=watch_s,
            silence_s=max(silence_s, 12.0),
            list_s=rng.choice((20.0, 600.0, 600.0)),
            share_bytes=rng.choice((4000, 6000, 9000)) if has("shares") else 128 << 20,
            namespace="shop" if has("one-namespace") else "",
            with_node=rng.random() < 0.7,
            wants_nodes=has("nodes"),
            first_items=tuple(first),
        )

    # -- when --------------------------------------------------------------------------------------

    def _draw_steps(self) -> None:
        rng = self.rng
        changes = rng.choice((3, 10, 25, 50))
        at = 0.0
        while changes > 0:
            # In bursts: much at once, then nothing for long.
            at = rng.uniform(0.0, self.chaos_s)
            for _ in range(min(changes, rng.choice((1, 1, 2, 5, 12)))):
                at += rng.choice((0.0, 0.001, 0.02, 0.5)) * rng.random()
                self._change(at)
                changes -= 1
        for fault in self.faults:
            for _ in range(rng.choice((1, 1, 2, 3, 5))):
                self._fault(fault, self._moment())
        if self.has("events"):
            for _ in range(rng.choice((1, 5, 30))):
                at = rng.uniform(0.0, self.chaos_s)
                if rng.random() < 0.2:
                    # It is written, and the answer is lost.
                    server, after = rng.randrange(2), rng.choice((0, 30))
                    self._step(at, "cut-answer", server, after, "events", False, 0, False)
                reasons = rng.choice((1, 3))
                for _ in range(rng.choice((1, 1, 3, 10))):
                    self._step(at, "happen", rng.randrange(reasons), rng.randrange(4))
        if self.has("nodes"):
            for _ in range(rng.randint(0, 3)):
                self._step(rng.uniform(0.0, self.chaos_s), "want-nodes", rng.random() < 0.6)

    def _draw_rarer_ones(self) -> None:
        """Draw what fills a bound, or meets another rare state; of its own as well.

        Lists of all Nodes that are denied, or expire between two pages; more kinds of Events than
        are kept, also while one of another namespace waits; a Node that is deleted and made again;
        an agent that begins with its last state, and ends before it has another one; more objects
        that can't be read than are listed; lists that end early; answers to new Events that are
        lost; a server that denies what another one permits.
        """
        before, self.rng = self.rng, Random(f"{self.seed}: rarer ones")
        rng = self.rng
        if self.has("events") and rng.random() < 0.3:
            self._crowd_events()
        if rng.random() < 0.1:
            self._make_node_again()
        if self.has("nodes") and rng.random() < 0.6:
            rng.choice((self._expire_nodes, self._deny_nodes))()
        if rng.random() < 0.08:
            at = self._moment()
            self._step(at, "silence", 0, rng.choice((2.0, 20.0, 60.0)))
            self._step(at, "silence", 1, rng.choice((2.0, 20.0, 60.0)))
            for _ in range(rng.choice((2, 2, 3))):
                at += rng.choice((0.01, 1.0, 10.0)) * rng.random()
                self._step(at, "agent-restart", True)
        if self.has("events") and rng.random() < 0.2:
            self._lose_answers()
        if self.has("two-servers") and self.has("short-watches") and rng.random() < 0.5:
            self._deny_by_one()
        if self.has("invalid") and rng.random() < 0.2:
            self._spoil_many(rng.uniform(0.0, self.chaos_s))
        if rng.random() < 0.1:
            self._end_list_early(rng.uniform(0.0, self.chaos_s), rng.randrange(2))
        self.rng = before

    def _crowd_events(self) -> None:
        rng = self.rng
        at = rng.uniform(0.0, self.chaos_s)
        for _ in range(rng.choice((1, 1, 2))):
            is_node = rng.random() < 0.3
            reasons = list(range(rng.choice((40, 60, 60, 120))))
            rng.shuffle(reasons)
            for reason in reasons:
                self._step(at, "happen", reason, 3 if is_node else rng.randrange(3))
                at += rng.choice((0.0, 0.0, 0.1)) * rng.random()
            # The other one's has its turn nevertheless.
            other = rng.randrange(3) if is_node else 3
            self._step(at + 2.0 * rng.random(), "happen", rng.randrange(200, 203), other)
            at += rng.choice((1.0, 30.0, 70.0))
            for _ in range(rng.choice((0, 3, 10))):
                number = 3 if is_node else rng.randrange(3)
                self._step(at, "happen", rng.randrange(130), number)

    def _make_node_again(self) -> None:
        """Have this node's object deleted and made again, perhaps unseen by the watch."""
        rng = self.rng
        at = rng.uniform(0.0, self.chaos_s)
        is_cut, server = rng.random() < 0.5, rng.randrange(2)
        self.steps.append(Step(at, "put", (), self._node({"name": NODE})))
        for _ in range(rng.choice((1, 1, 3))):
            at += rng.choice((0.0, 0.01, 3.0)) * rng.random()
            if is_cut:
                self._step(at, rng.choice(("cut", "end")), server)
            self._step(at, "delete", "Node", "", NODE)
            at += rng.choice((0.0, 0.01, 3.0, 20.0)) * rng.random()
            if is_cut and rng.random() < 0.5:
                # The list has what the watch would have had.
                self._step(at, "touch")
                self._step(at, "compact")
            if rng.random() < 0.8:
                item = self._node({"name": NODE})
                self.steps.append(Step(min(at, self.chaos_s), "put", (), item))

    def _expire_nodes(self) -> None:
        """Have a list of all Nodes expire between its pages; some are deleted meanwhile."""
        rng = self.rng
        at, server = rng.uniform(0.0, self.chaos_s), rng.randrange(2)
        for name in (NODE, "bob", "carol", "dave", "erin"):
            self.steps.append(Step(at, "put", (), self._node({"name": name})))
        at += 0.01
        self._step(at, "want-nodes", True)
        self._step(at, "slow", server, 3.0, 0.3)
        self._step(at, "cut-answer", server, 0, "nodes", False, rng.choice((1, 2, 3, 3, 4)), True)
        self._step(at, "agent-restart", rng.random() < 0.7)
        self._step(at + rng.uniform(0.1, 1.0), "delete", "Node", "", rng.choice(("bob", "erin")))

    def _deny_nodes(self) -> None:
        """Have some lists of all Nodes denied, or fail, after a start with known addresses."""
        rng = self.rng
        at = rng.uniform(1.0, self.chaos_s)
        self._step(at, "agent-restart", True)
        for code in rng.choice(((403,), (403, 403), (403, 503, 403), (503, 403))):
            for server in (0, 1):
                self._step(at, "refuse", server, code, 9.0, "nodes", 0)
            # The next list is tried then.
            at += 10.0

    def _lose_answers(self) -> None:
        """Have the answer to a new Event be lost, while it happens again."""
        rng = self.rng
        at, reason, number = rng.uniform(0.0, self.chaos_s), rng.randrange(3), rng.randrange(4)
        for server in (0, 1):
            self._step(at, "cut-answer", server, 0, "events", False, 0, False)
        for _ in range(rng.choice((2, 4))):
            self._step(at, "happen", reason, number)
            at += rng.choice((0.5, 5.0, 20.0))

    def _deny_by_one(self) -> None:
        """Have one server deny what the other one permits, to which the watch may go."""
        rng = self.rng
        at, code = rng.uniform(0.0, self.chaos_s), rng.choice((401, 403, 404))
        self._step(at, "refuse", 0, code, 15.0, rng.choice(("services", "endpointslices")), 0)
        for _ in range(rng.choice((2, 4))):
            self._step(at, "cut", rng.randrange(2))
            at += rng.choice((1.0, 6.0))

    def _spoil_many(self, at: float) -> None:
        """Have more objects that can't be read than are listed."""
        for _ in range(self.rng.choice((25, 40))):
            item = self._item()
            if "is-invalid" not in item:
                self._spoil(item)
            self.steps.append(Step(at, "put", (), item))

    def _end_list_early(self, at: float, server: int) -> None:
        """Have a list end within an item, as behind a proxy that hides why."""
        rng = self.rng
        resource = rng.choice(("services", "endpointslices"))
        self._step(at, "touch")
        self._step(at, "compact")
        after = rng.choice((300, 900, 1500))
        self._step(at, "cut-answer", server, after, resource, True, rng.choice((1, 2, 2)), False)
        self._step(at, "end", server)

    def _draw_rare_ones(self) -> None:
        """Draw what has to follow something else; of its own, so that other plans stay as before.

        Lists that expire between two pages, while what the first one had is deleted; Events that
        the server deletes; bursts of cuts, soon after each other and far apart.
        """
        before, self.rng = self.rng, Random(f"{self.seed}: rare ones")
        rng = self.rng
        if self.has("pages") and rng.random() < 0.5:
            self._expire_lists()
        if self.has("events") and rng.random() < 0.5:
            for _ in range(rng.choice((1, 3))):
                at = rng.uniform(0.3, 1.0) * self.chaos_s
                self._step(at, "happen", rng.randrange(3), rng.randrange(4))
                self._step(at + 1.0, "forget-events")
                self._step(at + 1.1, "happen", rng.randrange(3), rng.randrange(4))
        if rng.random() < 0.15:
            at = rng.uniform(0.0, self.chaos_s)
            for _ in range(rng.choice((2, 3, 5))):
                self._step(at, "cut", rng.randrange(2))
                at += rng.choice((0.5, 2.0, 8.0, 20.0)) * rng.random()
        self.rng = before

    def _expire_lists(self) -> None:
        rng = self.rng
        for _ in range(rng.choice((1, 3))):
            at, server = rng.uniform(0.0, self.chaos_s), rng.randrange(2)
            resource = rng.choice(("services", "endpointslices"))
            kind = {"services": "Service", "endpointslices": "EndpointSlice"}[resource]
            self._step(at, "touch")
            self._step(at, "compact")
            self._step(at, "slow", server, 6.0, 0.5)
            # Its second page.
            self._step(at, "cut-answer", server, 0, resource, False, rng.choice((2, 3, 3, 4)), True)
            self._step(at, "end", server)
            for _ in range(rng.choice((3, 8))):
                _, namespace, name = self._key(kind)
                self._step(at + rng.uniform(0.5, 4.0), "delete", kind, namespace, name)

    def _moment(self) -> float:
        """Return a time, often just after another step."""
        if self.steps and self.rng.random() < 0.5:
            at = self.rng.choice(self.steps).at
            return at + self.rng.choice((0.0, 0.001, 0.005, 0.05, 1.0)) * self.rng.random()
        return self.rng.uniform(0.0, self.chaos_s)

    def _step(self, at: float, kind: str, *values: Any) -> None:
        self.steps.append(Step(min(at, self.chaos_s), kind, values))

    def _change(self, at: float) -> None:
        rng = self.rng
        draw = rng.random()
        if draw < (0.4 if self.has("shares") else 0.25):
            kind, namespace, name = self._key()
            self._step(at, "delete", kind, namespace, name)
        elif draw < 0.32:
            self._step(at, "put-same", *self._key())
        elif draw < 0.36 or (draw < 0.45 and self.has("touch")):
            self._step(at, "touch")
        else:
            self.steps.append(Step(min(at, self.chaos_s), "put", (), self._item()))

    # -- what breaks -------------------------------------------------------------------------------

    def _fault(self, kind: str, at: float) -> None:
        rng, server = self.rng, self.rng.randrange(2)
        seconds = rng.choice((0.05, 1.0, 8.0, 40.0)) * (0.5 + rng.random())
        faults: dict[str, Callable[[], object]] = {
            "cut": lambda: self._step(at, "cut", server),
            "end": lambda: self._step(at, "end", server),
            "stall": lambda: self._step(at, "stall", server),
            "silence": lambda: self._step(at, "silence", server, seconds),
            "refuse": lambda: self._refuse(at, server, seconds),
            "cut-answer": lambda: self._cut_answer(at, server),
            "broken-list": lambda: self._break_list(at, server),
            "restart": lambda: self._step(
                at,
                "restart",
                server,
                seconds * rng.random(),
                rng.choice((0, 0, 1, 5)),
                rng.choice((0.5, 5.0, 20.0)),
            ),
            "compact": lambda: self._compact(at),
            "restore": lambda: self._step(at, "restore", rng.choice((1, 3, 10)), rng.random()),
            "partition": lambda: self._step(at, "partition", seconds * rng.choice((1.0, 1.0, 4.0))),
            "slow": lambda: self._step(at, "slow", server, seconds, rng.choice((0.5, 5.0, 30.0))),
            "touch": lambda: self._step(at, "touch"),
            "agent-restart": lambda: self._step(at, "agent-restart", rng.random() < 0.6),
        }
        faults[kind]()

    def _refuse(self, at: float, server: int, seconds: float) -> None:
        rng = self.rng
        resource = rng.choice(("", "", "services", "endpointslices", "nodes", "events"))
        retry = rng.choice((0, 0, 1, 5, 20))
        code = rng.choice(_CODES)
        self._step(at, "refuse", server, code, seconds, resource, retry)
        if rng.random() < 0.5:
            self._step(at, rng.choice(("cut", "end")), server)

    def _cut_answer(self, at: float, server: int) -> None:
        rng = self.rng
        after = rng.choice((0, 1, rng.randrange(200), rng.randrange(3000)))
        resource = rng.choice(("", "services", "endpointslices", "nodes", "events"))
        skip, compacts = rng.choice((0, 0, 1, 2, 3)), rng.random() < 0.3
        values = (server, after, resource, rng.random() < 0.3, skip, compacts)
        self._step(at, "cut-answer", *values)
        if rng.random() < 0.5:
            # The next watch is expired, so there is a list to cut.
            self._step(at, "touch")
            self._step(at, "compact")
        if rng.random() < 0.8:
            self._step(at, rng.choice(("cut", "end")), server)

    def _break_list(self, at: float, server: int) -> None:
        """Have a list follow an expired watch and break off; what it has contained is deleted."""
        rng = self.rng
        kind, resource = rng.choice((("Service", "services"), ("EndpointSlice", "endpointslices")))
        for _ in range(rng.choice((1, 3))):
            item = self._item()
            if item["kind"] == kind:
                self.steps.append(Step(at, "put", (), item))
        self._step(at, "touch")
        self._step(at, "compact")
        # Before it come the question about the last state, if there is one, and the watch.
        after, skip = rng.choice((0, 300, 900, rng.randrange(5000))), rng.choice((1, 2, 2, 3, 4))
        self._step(at, "cut-answer", server, after, resource, False, skip, False)
        self._step(at, "end", server)
        later = at + rng.uniform(0.5, 2.5)
        for _ in range(rng.choice((2, 4, 8))):
            _, namespace, name = self._key(kind)
            self._step(later, "delete", kind, namespace, name)

    def _compact(self, at: float) -> None:
        if self.rng.random() < 0.6:
            self._step(at, "touch")
        self._step(at, "compact")
        if self.rng.random() < 0.7:
            self._step(at, self.rng.choice(("cut", "end")), self.rng.randrange(2))

    # -- objects -----------------------------------------------------------------------------------

    def _key(self, kind: str = "") -> tuple[str, str, str]:
        """Return kind, namespace and name."""
        rng = self.rng
        namespace = rng.choice(_NAMESPACES)
        if self.has("shares") and rng.random() < 0.5:
            namespace = CROWDED
        kind = kind or rng.choice(_KINDS)
        if kind == "Node":
            return kind, "", rng.choice((NODE, NODE, "bob", "carol"))
        count = 12 if self.has("large") or namespace == CROWDED else 4
        number = rng.randrange(count)
        name = f"web-{number}" if kind == "Service" else f"web-{number % 4}-{number // 4 + 1}"
        return kind, namespace, name

    def _item(self) -> dict[str, Any]:
        kind, namespace, name = self._key()
        metadata: dict[str, Any] = {"name": name}
        if namespace:
            metadata["namespace"] = namespace
        if kind == "Service":
            item = self._service(metadata)
        elif kind == "EndpointSlice":
            item = self._slice(metadata, name)
        else:
            item = self._node(metadata)
        if self.has("invalid") and self.rng.random() < 0.25:
            self._spoil(item)
        return item

    def _service(self, metadata: dict[str, Any]) -> dict[str, Any]:
        rng = self.rng
        spec: dict[str, Any] = {
            "clusterIP": f"10.96.{rng.randrange(3)}.{rng.randint(1, 250)}",
            "type": rng.choice(("ClusterIP", "NodePort", "LoadBalancer")),
            "selector": {"app": "web"},
            "ports": [
                {
                    "name": f"p{n}",
                    "port": 80 + n,
                    "protocol": rng.choice(("TCP", "UDP")),
                    "nodePort": rng.choice((0, 30080 + n)),
                }
                for n in range(rng.choice((1, 1, 2, 5)))
            ],
            "sessionAffinity": rng.choice(("None", "ClientIP")),
            "internalTrafficPolicy": rng.choice(("Cluster", "Local")),
            "externalTrafficPolicy": rng.choice(("Cluster", "Local")),
        }
        if rng.random() < 0.1:
            spec["clusterIP"] = "None"
        elif self.has("families"):
            other = f"fd00:10:96::{rng.randrange(3)}:{rng.randint(1, 250)}"
            spec["clusterIPs"] = rng.choice(([spec["clusterIP"]], [spec["clusterIP"], other]))
        if spec["sessionAffinity"] == "ClientIP" and rng.random() < 0.5:
            seconds = rng.choice((1, 60, 86400))
            spec["sessionAffinityConfig"] = {"clientIP": {"timeoutSeconds": seconds}}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    def _slice(self, metadata: dict[str, Any], name: str) -> dict[str, Any]:
        rng = self.rng
        of = name.rpartition("-")[0] if rng.random() < 0.85 else f"web-{rng.randrange(4)}"
        metadata["labels"] = {"kubernetes.io/service-name": of} if rng.random() < 0.95 else {}
        is_ipv6 = self.has("families") and rng.random() < 0.4
        network, sign = ("fd00:10:244::", ":") if is_ipv6 else ("10.244.", ".")
        endpoints = [
            {
                "addresses": [f"{network}{rng.randrange(2)}{sign}{rng.randint(1, 250)}"],
                "conditions": dict(rng.choice(_CONDITIONS)),
                "nodeName": rng.choice((NODE, "bob")),
            }
            for _ in range(rng.choice((0, 1, 2, 3, 10)))
        ]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": metadata,
            "addressType": "IPv6" if is_ipv6 else "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "p0", "port": 8080, "protocol": "TCP"}],
        }

    def _node(self, metadata: dict[str, Any]) -> dict[str, Any]:
        addresses = [{"type": "InternalIP", "address": f"10.1.0.{self.rng.randint(1, 250)}"}]
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": metadata,
            "status": {"addresses": addresses},
        }

    def _spoil(self, item: dict[str, Any]) -> None:
        """Make an object one that can't be read."""
        if item["kind"] == "Service":
            ports = item["spec"]["ports"]
            ports[-1] = self.rng.choice(({"port": 0}, {"port": "http"}, {"name": "x"}))
        elif item["kind"] == "EndpointSlice":
            item["addressType"] = self.rng.choice(("IPv5", 4, None))
        else:
            item["status"] = self.rng.choice((7, {"addresses": "none"}))
        item["is-invalid"] = True
