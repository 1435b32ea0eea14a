"""What is right, read from objects as JSON: which Services may scale a workload, and what forbids.

Rule 1: nothing of the product is used; docs/scale-to-zero.md says what is promised.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from .objects import DOMAIN, Item

NAMESPACE = "userspace-proxy"
RECENT_S = 90.0
"""How long demand lasts without ``idle-after``."""


class Wish(NamedTuple):
    """What a Service asks for."""

    key: str
    namespace: str
    selector: Mapping[str, str]
    hold_s: int
    wake: str
    idle_s: int
    is_headless: bool

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Return whether it selects all pods of a workload that requires these labels."""
        return bool(self.selector) and self.selector.items() <= labels.items()


def wish_of(item: Mapping[str, Any]) -> Wish:
    """Return what a Service asks for."""
    metadata, spec = item["metadata"], item["spec"]
    notes = metadata.get("annotations") or {}

    def seconds(name: str) -> int:
        return int(notes.get(DOMAIN + name, "0").removesuffix("s"))

    return Wish(
        f"{metadata['namespace']}/{metadata['name']}",
        metadata["namespace"],
        spec.get("selector") or {},
        seconds("hold"),
        notes.get(DOMAIN + "wake", ""),
        seconds("idle-after"),
        spec.get("clusterIP") == "None",
    )


class Rights(NamedTuple):
    """Who has to do with one workload."""

    asked: tuple[Wish, ...]
    """The Services that may have it scaled, and whose clients are counted."""
    others: tuple[Wish, ...]
    """Those that keep it awake, whatever their clients do."""

    @property
    def asks_for_rest(self) -> bool:
        return any(wish.idle_s for wish in self.asked)

    @property
    def longest_idle_s(self) -> float:
        """The longest time for which there must have been no demand."""
        return max((wish.idle_s or RECENT_S for wish in self.asked), default=RECENT_S)


def rights_to(wishes: Mapping[str, Wish], namespace: str, text: str, labels: Item) -> Rights:
    """Return who has to do with a workload.

    Args:
        text: What a Service names it by.
        labels: Those that its selector requires.
    """
    asked, others = [], []
    for wish in wishes.values():
        if wish.namespace != namespace or not wish.selects(labels):
            continue
        if wish.wake == text and wish.hold_s and not wish.is_headless:
            asked.append(wish)
        elif not (wish.is_headless and wish.wake == text):
            others.append(wish)
    return Rights(tuple(asked), tuple(others))


def forbids(others: Mapping[str, Mapping[Any, Item]], spec: Any) -> Iterator[str]:
    """Yield which autoscalers and budgets keep a workload awake.

    Args:
        spec: Its namespace, kind, name and labels.
    """
    for (namespace, name), item in others["horizontalpodautoscalers"].items():
        target = item["spec"]["scaleTargetRef"]
        is_of_it = namespace == spec.namespace and (
            (target["kind"].lower(), target["name"]) == (spec.kind, spec.name)
        )
        if is_of_it and item["spec"].get("minReplicas", 1) > 0:
            yield f"autoscaler {name}"
    for (namespace, name), item in others["poddisruptionbudgets"].items():
        labels = dict(spec.labels)
        selector = item["spec"]["selector"]["matchLabels"]
        contradicts = any(labels.get(key, value) != value for key, value in selector.items())
        if namespace == spec.namespace and not contradicts and _needs_one(item["spec"]):
            yield f"budget {name}"


def _needs_one(spec: Item) -> bool:
    """Return whether a budget forbids that the last of one pods ends."""
    if "minAvailable" in spec:
        return spec["minAvailable"] not in (0, "0%")
    return spec.get("maxUnavailable", 0) in (0, "0%")


# -- Leases ----------------------------------------------------------------------------------------


class Answer(NamedTuple):
    """What a node has answered."""

    number: str
    services: frozenset[str]


class Asked(NamedTuple):
    """What the holder's Lease asks."""

    number: str = ""
    services: frozenset[str] = frozenset()
    is_over: bool = True


def answer_of(lease: Mapping[str, Any]) -> Answer:
    """Return what a node's Lease answers."""
    found = json.loads((lease["metadata"].get("annotations") or {}).get(DOMAIN + "answer", "{}"))
    return Answer(found.get("round", ""), frozenset(found.get("services", ())))


def asked_by(lease: Mapping[str, Any] | None) -> Asked:
    """Return what the holder's Lease asks."""
    notes = ((lease or {}).get("metadata") or {}).get("annotations") or {}
    if DOMAIN + "round" not in notes:
        return Asked()
    found = json.loads(notes[DOMAIN + "round"])
    return Asked(found["number"], frozenset(found["services"]), found["isOver"])


def holder_of(lease: Mapping[str, Any] | None) -> str:
    """Return which process holds the holder's Lease; empty: none does."""
    return str(((lease or {}).get("spec") or {}).get("holderIdentity") or "")
