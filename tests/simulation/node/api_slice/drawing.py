"""Draws plans: which features a run has, what is written, and what breaks.

Rule 1: a run has few kinds of faults, so that each meets quiet ones (swarm).
"""

from __future__ import annotations

from random import Random
from typing import Any

from .draft import Draft
from .faults import FAULTS, Faults
from .node_failures import NodeFailures
from .objects import Objects
from .plan import Plan
from .pods import add_selection, draw_pods
from .rare_situations import RareSituations

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
# More than any object takes, and less than several.
_LINE_BYTES = 4096
_FROM_PODS = 0.15


def make_plan(seed: int) -> Plan:
    """Return the plan of a seed."""
    return _Drawing(seed).plan()


class _Drawing:
    def __init__(self, seed: int) -> None:
        rng = Random(seed)
        faults = rng.sample(FAULTS, rng.choice((0, 1, 1, 2, 2, 3, 4, 6)))
        features = {*faults, *(each for each in _SETTINGS if rng.random() < 0.3)}
        self.kinds = [each for each in faults if each != "agent-restart" or rng.random() < 0.7]
        """Of faults."""
        self.draft = draft = Draft(seed, rng, features, rng.choice((5.0, 30.0, 90.0, 300.0, 700.0)))
        self.objects = objects = Objects(draft)
        self.faults = Faults(draft, objects)
        self.rare = RareSituations(draft, objects)

    def plan(self) -> Plan:
        draft = self.draft
        rng, has = draft.rng, draft.has
        first = [self.objects.item() for _ in range(rng.randint(0, 12))]
        self._draw_steps()
        with draft.of_its_own("rare ones"):
            self.rare.draw_rare_ones()
        with draft.of_its_own("rarer ones"):
            self.rare.draw_rarer_ones()
        with draft.of_its_own("rarest ones"):
            self.rare.draw_rarest_ones()
            line_bytes = draft.rng.choice((_LINE_BYTES, _LINE_BYTES, 16 << 20))
            if draft.has("details"):
                line_bytes += _LINE_BYTES // 2
        with draft.of_its_own("more rare ones"):
            self.rare.draw_more_rare_ones()
        with draft.of_its_own("pods"):
            from_pods = draft.rng.random() < _FROM_PODS and not has("shares")
            if from_pods:
                first += self._draw_pods(first)
        self._draw_last_ones()
        bookmark_s = rng.choice((5.0, 20.0, 60.0))
        if has("no-bookmarks"):
            bookmark_s = 0.0
        watch_s = rng.choice((5.0, 20.0, 60.0)) if has("short-watches") else 300.0
        silence_s = 2.5 * bookmark_s if bookmark_s and rng.random() < 0.5 else 150.0
        return Plan(
            draft.seed,
            frozenset(draft.features),
            tuple(sorted(draft.steps, key=lambda step: step.at)),
            draft.chaos_s,
            servers=2 if has("two-servers") else 1,
            lag_s=rng.choice((0.01, 0.3, 2.0)) if has("lag") else 0.0,
            has_watch_cache=rng.random() < (0.2 if has("pages") else 0.6),
            waits_for_future=rng.random() < 0.5,
            tells_from_now=has("tells-from-now"),
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
            line_bytes=line_bytes,
            share_bytes=rng.choice((8000, 14000, 21000)) if has("shares") else 128 << 20,
            namespace="shop" if has("one-namespace") else "",
            with_node=rng.random() < 0.7,
            wants_nodes=has("nodes"),
            denies_node=has("node-denied"),
            from_pods=from_pods,
            first_items=tuple(first),
        )

    def _draw_last_ones(self) -> None:
        draft = self.draft
        with draft.of_its_own("failures of the Node"):
            NodeFailures(draft, self.objects).draw()
        with draft.of_its_own("old events"):
            self.rare.draw_old_events()
        with draft.of_its_own("rejected events"):
            self.rare.draw_rejected_events()

    def _draw_pods(self, first: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Have endpoints derived from Pods; return those of the beginning."""
        draft = self.draft
        draft.features.add("pods")
        for item in (*first, *(step.item for step in draft.steps if step.item is not None)):
            if item["kind"] == "Service":
                add_selection(draft.rng, item)
        return draw_pods(draft)

    def _draw_steps(self) -> None:
        rng = self.draft.rng
        changes = rng.choice((3, 10, 25, 50))
        at = 0.0
        while changes > 0:
            # In bursts: much at once, then nothing for long.
            at = rng.uniform(0.0, self.draft.chaos_s)
            for _ in range(min(changes, rng.choice((1, 1, 2, 5, 12)))):
                at += rng.choice((0.0, 0.001, 0.02, 0.5)) * rng.random()
                self._change(at)
                changes -= 1
        for fault in self.kinds:
            for _ in range(rng.choice((1, 1, 2, 3, 5))):
                self.faults.draw(fault, self.draft.moment())
        if self.draft.has("events"):
            for _ in range(rng.choice((1, 5, 30))):
                at = rng.uniform(0.0, self.draft.chaos_s)
                if rng.random() < 0.2:
                    # It is written, and the answer is lost.
                    server, after = rng.randrange(2), rng.choice((0, 30))
                    self.draft.step(at, "cut-answer", server, after, "events", False, 0, False)
                reasons = rng.choice((1, 3))
                for _ in range(rng.choice((1, 1, 3, 10))):
                    self.draft.step(at, "happen", rng.randrange(reasons), rng.randrange(4))
        if self.draft.has("nodes"):
            for _ in range(rng.randint(0, 3)):
                self.draft.step(
                    rng.uniform(0.0, self.draft.chaos_s), "want-nodes", rng.random() < 0.6
                )

    def _change(self, at: float) -> None:
        rng = self.draft.rng
        draw = rng.random()
        if draw < (0.4 if self.draft.has("shares") else 0.25):
            kind, namespace, name = self.objects.key()
            self.draft.step(at, "delete", kind, namespace, name)
        elif draw < 0.32:
            self.draft.step(at, "put-same", *self.objects.key())
        elif draw < 0.36 or (draw < 0.45 and self.draft.has("touch")):
            self.draft.step(at, "touch")
        else:
            self.draft.put(min(at, self.draft.chaos_s), self.objects.item())
