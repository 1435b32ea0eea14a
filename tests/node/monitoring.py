"""Reads Prometheus queries and KEDA triggers from files of examples/monitoring and docs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

_SELECTOR = re.compile(r"\b((?:userspace_proxy|kubeproxy|process)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r"(\w+)\s*[=!]~?")
_GROUPING = re.compile(r"\b(?:by|without)\s*\(([^)]*)\)")
# The labels that Prometheus adds to each series.
_OF_THE_TARGET = {"instance", "job"}


class Query(NamedTuple):
    """The metrics and labels that a query needs."""

    metrics: frozenset[str]
    labels: frozenset[str]
    """Labels that at least one of the metrics must have."""


def queries_of(dashboard: Path) -> list[str]:
    """Return the queries of a Grafana dashboard, with a value for each of its variables."""
    content = json.loads(dashboard.read_text())
    found = [target["expr"] for panel in content["panels"] for target in panel.get("targets", ())]
    return [query.replace("$__rate_interval", "5m").replace("$__range", "1h") for query in found]


def variables_of(dashboard: Path) -> list[str]:
    """Return the queries of a dashboard's variables."""
    variables = json.loads(dashboard.read_text())["templating"]["list"]
    return [variable["definition"] for variable in variables if variable["type"] == "query"]


def triggers_of(page: Path, kind: str) -> list[dict[str, str]]:
    """Return the metadata of KEDA triggers of one type in the YAML of a page."""
    blocks = re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)
    specs = [content.get("spec", content) for content in map(yaml.safe_load, blocks)]
    triggers = [trigger for spec in specs for trigger in spec.get("triggers", ())]
    return [trigger["metadata"] for trigger in triggers if trigger["type"] == kind]


def needs_of(query: str) -> Query:
    """Return the metrics and labels that a query needs."""
    selectors = _SELECTOR.findall(query)
    labels = {name for _, matchers in selectors for name in _MATCHER.findall(matchers)}
    labels |= set(_grouped(query))
    return Query(frozenset(name for name, _ in selectors), frozenset(labels - _OF_THE_TARGET))


def _grouped(query: str) -> Iterator[str]:
    for names in _GROUPING.findall(query):
        yield from (name.strip() for name in names.split(","))
