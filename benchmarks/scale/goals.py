"""The goals for ten thousand Services."""

from __future__ import annotations

from ..goals import Goal

_STEERINGS = ("nftables", "iptables", "local")


def _goal(what: str, row: str, metric: str, way: str, bound: float) -> Goal:
    return Goal(what, row, metric, way, None, bound, at_most=True, slack=0.0)


def _of_api(what: str, row: str, metric: str, bound: float, **others: float) -> tuple[Goal, ...]:
    return tuple(
        _goal(what, row, metric, f"api-{each}", others.get(each, bound)) for each in _STEERINGS
    )


GOALS = (
    *_of_api("start to all served, s", "start", "start_s", 10),
    *(
        _goal("start to all served, s", "start", "start_s", way, 8)
        for way in ("json-nftables", "yaml-nftables", "yaml-iptables", "yaml-local")
    ),
    *_of_api("memory of all processes, MB", "memory", "memory_mb", 350),
    *(
        _goal("memory of all processes, MB", "memory", "memory_mb", way, 220)
        for way in ("json-nftables", "yaml-nftables", "yaml-iptables", "yaml-local")
    ),
    *_of_api("endpoint change, median, ms", "endpoint", "effect_ms", 50),
    *_of_api("none ↔ some endpoints, median, ms", "none_some", "effect_ms", 50, iptables=200),
    *_of_api("a new Service, median, ms", "new_service", "effect_ms", 100, iptables=300),
    *_of_api("100 changes a second: the next one's effect, ms", "churn", "behind_ms", 500),
    *_of_api("100 changes a second: turns of the worker over 20 ms", "churn", "late_turns", 0),
    *_of_api("a new connection: rules, to those of 10 Services", "connection", "rules_ratio", 1.15),
    *_of_api("a new connection: CPU, to that of 10 Services", "connection", "cpu_ratio", 1.15),
)
