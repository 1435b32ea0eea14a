"""Generates the tables of docs/kube-proxy.md: the effect of each kube-proxy flag and field.

``python -m userspace_proxy.config.kubeproxy_docs`` prints them; with the page's path it puts them
into the page. A test compares the page with what this generates.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .ignored import FIELDS, FLAGS, Ignored
from .settings import TABLE
from .table import Setting

BEGIN = "<!-- made by python -m userspace_proxy.config.kubeproxy_docs: begin -->"
END = "<!-- made by python -m userspace_proxy.config.kubeproxy_docs: end -->"

# Flags of kube-proxy's that have no field in its file.
_FLAGS_ONLY = frozenset({"config", "master", "cleanup", "write-config-to"})
# Older flags, read by the module ``flags``: the port of an address that has a flag of its own.
_PORTS = {"healthz-port": "healthz-bind-address", "metrics-port": "metrics-bind-address"}


def render_tables() -> str:
    """Return both tables as Markdown, between the two marks, with a line end at the end."""
    ours = [row for row in TABLE.values() if row.kube_field or row.flag in _FLAGS_ONLY]
    flags = {flag: _meaning(row) for row in ours for flag in _flags(row)}
    flags |= {old: ("used", f"the port of `--{new}`; 0: off") for old, new in _PORTS.items()}
    fields = {row.kube_field: _meaning(row) for row in ours if row.kube_field}
    parts = [BEGIN, "", "## Flags", "", *_table("flag", "--", flags, FLAGS), ""]
    parts += ["## Fields of KubeProxyConfiguration", "", *_table("field", "", fields, FIELDS), ""]
    return "\n".join([*parts, END, ""])


def put_into(page: str) -> str:
    """Return a page with the tables in place of what stands between its marks.

    Raises:
        ValueError: The page has no marks.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(f"{END}\n")
    if not begin or not end:
        raise ValueError("the page has no markers")
    return f"{before}{render_tables()}{after}"


def _flags(row: Setting) -> tuple[str, ...]:
    """Return the names that kube-proxy knows: ``--log-format`` is ours, its alias is not."""
    return row.aliases or (row.flag,)


def _meaning(row: Setting) -> tuple[str, str]:
    return ("no effect", row.no_effect) if row.no_effect else ("used", row.help)


def _table(
    heading: str,
    prefix: str,
    ours: Mapping[str, tuple[str, str]],
    ignored: Mapping[str, Ignored],
) -> Iterator[str]:
    # Ours in the order of all docs, where one sentence refers to the one before it.
    rows = {
        **ours,
        **{
            name: ("ignored", row.reason)
            for name, row in ((name, ignored[name]) for name in sorted(ignored))
        },
    }
    yield f"| {heading} | here | what it does, or why it has no effect |"
    yield "|---|---|---|"
    for name, (here, text) in rows.items():
        cell = text.replace("|", "\\|")
        yield f"| `{prefix}{name}` | {here} | {cell} |"


def _main(words: Sequence[str]) -> None:
    for word in words:
        page = Path(word)
        page.write_text(put_into(page.read_text(encoding="utf-8")), encoding="utf-8")
    if not words:
        sys.stdout.write(render_tables())


if __name__ == "__main__":
    _main(sys.argv[1:])
