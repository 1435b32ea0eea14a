"""Draws what breaks: on the way to the servers, in their answers, and in the servers themselves."""

from __future__ import annotations

from collections.abc import Callable

from .draft import Draft
from .objects import Objects

FAULTS = (
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
_CODES = (429, 500, 503, 502, 401, 403, 404)


class Faults:
    """The faults of one plan."""

    def __init__(self, draft: Draft, objects: Objects) -> None:
        self.draft = draft
        self.objects = objects

    def draw(self, kind: str, at: float) -> None:
        rng, server = self.draft.rng, self.draft.rng.randrange(2)
        seconds = rng.choice((0.05, 1.0, 8.0, 40.0)) * (0.5 + rng.random())
        faults: dict[str, Callable[[], object]] = {
            "cut": lambda: self.draft.step(at, "cut", server),
            "end": lambda: self.draft.step(at, "end", server),
            "stall": lambda: self.draft.step(at, "stall", server),
            "silence": lambda: self.draft.step(at, "silence", server, seconds),
            "refuse": lambda: self._refuse(at, server, seconds),
            "cut-answer": lambda: self._cut_answer(at, server),
            "broken-list": lambda: self._break_list(at, server),
            "restart": lambda: self.draft.step(
                at,
                "restart",
                server,
                seconds * rng.random(),
                rng.choice((0, 0, 1, 5)),
                rng.choice((0.5, 5.0, 20.0)),
            ),
            "compact": lambda: self._compact(at),
            "restore": lambda: self.draft.step(at, "restore", rng.choice((1, 3, 10)), rng.random()),
            "partition": lambda: self.draft.step(
                at, "partition", seconds * rng.choice((1.0, 1.0, 4.0))
            ),
            "slow": lambda: self.draft.step(
                at, "slow", server, seconds, rng.choice((0.5, 5.0, 30.0))
            ),
            "touch": lambda: self.draft.step(at, "touch"),
            "agent-restart": lambda: self.draft.step(at, "agent-restart", rng.random() < 0.6),
        }
        faults[kind]()

    def _refuse(self, at: float, server: int, seconds: float) -> None:
        rng = self.draft.rng
        resource = rng.choice(("", "", "services", "endpointslices", "nodes", "events"))
        retry = rng.choice((0, 0, 1, 5, 20))
        code = rng.choice(_CODES)
        self.draft.step(at, "refuse", server, code, seconds, resource, retry)
        if rng.random() < 0.5:
            self.draft.step(at, rng.choice(("cut", "end")), server)

    def _cut_answer(self, at: float, server: int) -> None:
        rng = self.draft.rng
        after = rng.choice((0, 1, rng.randrange(200), rng.randrange(3000)))
        resource = rng.choice(("", "services", "endpointslices", "nodes", "events"))
        skip, compacts = rng.choice((0, 0, 1, 2, 3)), rng.random() < 0.3
        values = (server, after, resource, rng.random() < 0.3, skip, compacts)
        self.draft.step(at, "cut-answer", *values)
        if rng.random() < 0.5:
            # The next watch is expired, so there is a list to cut.
            self.draft.step(at, "touch")
            self.draft.step(at, "compact")
        if rng.random() < 0.8:
            self.draft.step(at, rng.choice(("cut", "end")), server)

    def _break_list(self, at: float, server: int) -> None:
        """Have a list follow an expired watch and break off; what it has contained is deleted."""
        rng = self.draft.rng
        kind, resource = rng.choice((("Service", "services"), ("EndpointSlice", "endpointslices")))
        for _ in range(rng.choice((1, 3))):
            item = self.objects.item()
            if item["kind"] == kind:
                self.draft.put(at, item)
        self.draft.step(at, "touch")
        self.draft.step(at, "compact")
        # Before it come the question about the last state, if there is one, and the watch.
        after, skip = rng.choice((0, 300, 900, rng.randrange(5000))), rng.choice((1, 2, 2, 3, 4))
        self.draft.step(at, "cut-answer", server, after, resource, False, skip, False)
        self.draft.step(at, "end", server)
        later = at + rng.uniform(0.5, 2.5)
        for _ in range(rng.choice((2, 4, 8))):
            _, namespace, name = self.objects.key(kind)
            self.draft.step(later, "delete", kind, namespace, name)

    def _compact(self, at: float) -> None:
        if self.draft.rng.random() < 0.6:
            self.draft.step(at, "touch")
        self.draft.step(at, "compact")
        if self.draft.rng.random() < 0.7:
            self.draft.step(at, self.draft.rng.choice(("cut", "end")), self.draft.rng.randrange(2))
