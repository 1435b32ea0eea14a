"""Generates the tables of docs/configuration.md from the table of settings.

The tables are between the page's markers, where ``make docs`` writes them.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path

from userspace_proxy.config.ignored import FIELDS, FLAGS, IgnoredSetting
from userspace_proxy.config.setting_table import Setting, Topic
from userspace_proxy.config.settings import TABLE, Settings

from .markdown import replace_part, table

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE_WIDTH = 120

# kube-proxy's flags without a field in its file.
_FLAGS_ONLY = frozenset({"config", "master", "cleanup", "write-config-to"})
# Older flags, parsed by the module ``flags``; each sets the port of another flag's address.
_PORTS = {"healthz-port": "healthz-bind-address", "metrics-port": "metrics-bind-address"}


def configuration() -> str:
    """Return the tables: all settings, and the effect of kube-proxy's flags and fields."""
    lines: list[str] = []
    for topic in Topic:
        rows = [_setting(name, row) for name, row in TABLE.items() if row.topic is topic]
        headings = ("flag", "in the file", "value", "default", "what it does")
        lines += [f"### {topic}", "", table(headings, rows), ""]
    lines += ["## kube-proxy's flags", "", used_flags(), ""]
    lines += [
        "kube-proxy obeys them in all modes, but `iptables.*` not in the modes ipvs and nftables,",
        "which is so here, too. The following have no effect here; each is validated, and logged",
        "once, with the reason, unless it has the value that kubeadm writes:",
        "",
    ]
    return "\n".join([*lines, ignored()])


def used_flags() -> str:
    """Return the flags of kube-proxy that are in the tables of settings."""
    used = [row for row in TABLE.values() if row.kube_field or row.flag in _FLAGS_ONLY]
    # If kube-proxy's flag is an alias, the flag itself is this proxy's.
    flags = [
        f"`--{flag}`"
        for row in used
        for flag in ((row.flag,) if row.flag in _FLAGS_ONLY else row.aliases or (row.flag,))
    ]
    ports = [f"`--{old}` (the port of `--{new}`; 0: off)" for old, new in _PORTS.items()]
    text = f"Those in the tables above are kube-proxy's, too: {', '.join(flags)}. So are"
    return textwrap.fill(
        f"{text} {' and '.join(ports)}.",
        PAGE_WIDTH,
        break_long_words=False,
        break_on_hyphens=False,
    )


def ignored() -> str:
    """Return a table of kube-proxy's flags and fields that have no effect, by reason."""
    flags, fields = _by_reason(FLAGS, "--"), _by_reason(FIELDS, "")
    there = {row.reason: row.there for row in (*FLAGS.values(), *FIELDS.values())}
    rows = ((flags.get(why, ""), fields.get(why, ""), there[why], why) for why in there)
    return table(("flags", "fields", "kube-proxy obeys it", "without effect here, because"), rows)


def configuration_page(page: str) -> str:
    """Return docs/configuration.md with up-to-date tables."""
    return replace_part(page, configuration())


def _setting(name: str, row: Setting) -> tuple[str, ...]:
    own_field = f"`{row.own_field}` (ours)" if row.own_field else ""
    fields = [field for field in (row.kube_field and f"`{row.kube_field}`", own_field) if field]
    default = row.shown_default or f"`{row.kind.write_text(getattr(Settings(), name))}`"
    return (
        ", ".join(f"`--{flag}`" for flag in (row.flag, *row.aliases)),
        ", ".join(fields),
        f"`{row.kind.name}`",
        f"{default}: {row.why}" if row.why else default,
        f"{row.help}. **No effect**: {row.no_effect}" if row.no_effect else row.help,
    )


def _by_reason(rows: Mapping[str, IgnoredSetting], prefix: str) -> dict[str, str]:
    names: dict[str, list[str]] = {}
    for name, row in rows.items():
        names.setdefault(row.reason, []).append(f"`{prefix}{name}`")
    return {reason: ", ".join(ignored) for reason, ignored in names.items()}
