"""Writes docs/conformance.md from the runs that were kept: test by test, kube-proxy beside ours."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..nodes.proxies import PROXIES
from .groups import GROUPS, SKIP, Group
from .junit import FAILED, PASSED, SKIPPED, Result
from .reasons import reason_for
from .run import Run

COLUMNS = ("kube-proxy", "nftables", "iptables", "local")
"""Keys of `PROXIES`, in the order of the columns."""
MARKS = {PASSED: "✓", FAILED: "**✗**", SKIPPED: "–"}
_LABEL = re.compile(r" \[[^\]]*\]")

_HEAD = """\
# Upstream's own tests

Kubernetes' end-to-end tests (`e2e.test` {kubernetes}), unchanged, against real clusters whose only
Service proxy is the one named above the column: etcd, kube-apiserver, kube-controller-manager,
kube-scheduler, kubelet and containerd, each node in namespaces of one machine (`make cluster`).
`make e2e` runs them and writes this page; `make e2e PROXY=nftables GROUP=services` runs one column
of one table. A version that ends with `+` had changes that weren't committed.

Chosen are the tests of `[sig-network]` that the headings name, without those that upstream marks
{skip}:
they need ssh to nodes, a cloud, or a feature that is off by default.
✓ passed, ✗ failed, – didn't run, for the reason given.
"""


def render(runs: Mapping[tuple[str, str], Run]) -> str:
    """Return the page.

    Args:
        runs: By proxy and group; what is missing has an empty column.
    """
    versions = sorted({run.kubernetes for run in runs.values()})
    skip = ", ".join(f"`{word.rstrip(':')}`" for word in SKIP)
    parts = [_HEAD.format(kubernetes=", ".join(versions), skip=skip)]
    for name, group in GROUPS.items():
        of_group = {proxy: run for (proxy, of), run in runs.items() if of == name}
        if name != "ci" and of_group:
            parts.append(_render_group(group, of_group))
    return "\n".join(parts)


def _render_group(group: Group, runs: Mapping[str, Run]) -> str:
    columns = [proxy for proxy in COLUMNS if proxy in runs]
    results = {proxy: {r.name: r for r in runs[proxy].results} for proxy in columns}
    names = sorted({name for found in results.values() for name in found})
    rows = [["", *(PROXIES[proxy].title for proxy in columns)], ["---", *([":-:"] * len(columns))]]
    rows.append(["version", *(f"`{runs[proxy].version}`" for proxy in columns)])
    rows.append(["pods connected by", *(f"`{runs[proxy].cni}`" for proxy in columns)])
    rows.append(["**passed**", *(_count(runs[proxy]) for proxy in columns)])
    rows.append(["duration", *(f"{runs[proxy].seconds:.0f} s" for proxy in columns)])
    for name in names:
        cells = [_cell(results[proxy].get(name)) for proxy in columns]
        rows.append([_plain(name), *cells])
    lines = [f"## {group.title}", ""]
    lines.append(f"{group.nodes} nodes in three zones, {group.processes} tests at a time.")
    lines += ["", *(f"| {' | '.join(row)} |" for row in rows), ""]
    remarks = list(_remarks(names, columns, results))
    return "\n".join([*lines, *remarks, *([""] if remarks else [])])


def _count(run: Run) -> str:
    ran = [result for result in run.results if result.outcome != SKIPPED]
    return f"{run.passed} of {len(ran)}"


def _cell(result: Result | None) -> str:
    return MARKS[result.outcome] if result else ""


def _remarks(
    names: Iterable[str], columns: Sequence[str], results: Mapping[str, Mapping[str, Result]]
) -> Iterator[str]:
    """Yield a line for each test that didn't pass somewhere."""
    for name in names:
        found = {proxy: results[proxy][name] for proxy in columns if name in results[proxy]}
        missed = {proxy: result for proxy, result in found.items() if result.outcome != PASSED}
        if not missed:
            continue
        is_ours = any(not proxy.startswith("kube-proxy") for proxy in missed)
        why = reason_for(name, is_ours=is_ours) or "; ".join(
            f"{proxy}: {result.reason}" for proxy, result in missed.items()
        )
        yield f"- *{_plain(name)}*: {why.replace('|', '/')}"


def _plain(name: str) -> str:
    """Return a test's name without the group's mark and the labels at its end."""
    plain = _LABEL.sub("", name.removeprefix("[sig-network] "))
    return plain.replace("|", "/")
