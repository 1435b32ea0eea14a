"""Adds to each alert of examples/monitoring the URL of its section in docs/troubleshooting.md."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from userspace_proxy import __version__

from .addresses import links_from, repository, tag_of
from .guide_page import ROOT, SOURCE, anchor

RULES = ROOT / "examples" / "monitoring" / "prometheusrule.yaml"
REASON = "{{ $labels.reason }}"
"""The template that Prometheus replaces with a cause's code; each code has its own section."""

_ALERT = re.compile(r"^ +- alert: (\w+)\n(?:(?! +- alert: ).*\n)*", re.MULTILINE)
_OLD = re.compile(r"^ +runbook_url: .*\n", re.MULTILINE)
_ANNOTATIONS = re.compile(r"^( +)annotations:\n", re.MULTILINE)


def with_runbooks(text: str) -> str:
    """Return the rules with an up-to-date ``runbook_url`` in each alert."""
    page = SOURCE.relative_to(ROOT).as_posix()
    address = links_from(page, repository, tag_of(__version__))

    def with_runbook(alert: re.Match[str]) -> str:
        part = _OLD.sub("", alert[0])
        section = REASON if REASON in part else anchor(alert[1])
        url = f'"{address(f"#{section}")}"'
        return _ANNOTATIONS.sub(rf"\g<0>\1  runbook_url: {url}\n", part, count=1)

    return _ALERT.sub(with_runbook, text)


def alerts_of(text: str) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(text)["spec"]["groups"]:
        yield from group["rules"]
