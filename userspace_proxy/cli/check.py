"""Runs ``userspace-proxy check``: reports problems that ``run`` with the same flags would have.

    warning  routes: programs on this node can't dial 10.96.0.0/12: … -> ip route add …
    ok       steering: auto chooses nftables: …

The command changes nothing. An unreadable file is a finding (exit 1), an invalid flag a usage error
(exit 2).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..config.flags import Flags, read_flags
from ..config.load import Loaded, load_flags
from ..errors import ConfigError
from ..status.wrapping import placed, placed_remedy
from .command import DONE, FAILED, Given
from .terminal import columns_of

if TYPE_CHECKING:
    from ..check import Finding


def check(given: Given) -> int:
    """Print the findings; return the exit status, 1 if any is an error.

    Raises:
        ConfigError: A flag is invalid.
    """
    findings = _look(read_flags(given.settings, command=given.command))

    from ..check import Mark, worst

    is_json = given.values.get("output") == "json"
    print(render_json(findings) if is_json else render_text(findings, columns_of(sys.stdout)))
    return FAILED if worst(findings) is Mark.ERROR else DONE


def render_text(findings: Sequence[Finding], columns: int = 0) -> str:
    """Return a line for each finding, and the counts; with 0 columns, lines aren't wrapped."""
    from ..model.quoting import printable

    counts = {mark: sum(f.mark == mark for f in findings) for mark in ("error", "warning", "ok")}
    words = ", ".join(f"{count} {mark}" for mark, count in counts.items())
    lines = []
    for finding in findings:
        whole = printable(str(finding))
        if len(whole) <= columns or not columns:
            lines.append(whole)
            continue
        what = f"{finding.topic}: {finding.what}{f' [{finding.where}]' if finding.where else ''}"
        head = f"{finding.mark:<7}  "
        lines += placed(head, printable(what), columns)
        if finding.hint:
            lines += placed_remedy(f"{' ' * len(head)}-> ", printable(finding.hint), columns)
    return "\n".join([*lines, words])


def render_json(findings: Sequence[Finding]) -> str:
    """Return a JSON object with the worst mark and all findings."""
    from ..check import worst

    answer = {"mark": worst(findings), "findings": [dataclasses.asdict(f) for f in findings]}
    return json.dumps(answer, indent=2, ensure_ascii=False)


def _look(flags: Flags) -> list[Finding]:
    from ..check import check_settings

    problem = None
    try:
        loaded = load_flags(flags)
    except ConfigError as exc:
        problem, loaded = exc, _without_file(flags)
    return check_settings(loaded.settings, loaded.warnings, problem)


def _without_file(flags: Flags) -> Loaded:
    """Return settings from flags alone, so that a broken file doesn't prevent other checks.

    Raises:
        ConfigError: The flags are invalid.
    """
    values = {name: value for name, value in flags.values.items() if name != "config_file"}
    return load_flags(dataclasses.replace(flags, values=values))
