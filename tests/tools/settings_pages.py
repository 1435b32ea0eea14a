"""Generates the tables of docs/configuration.md and docs/kube-proxy.md from the table of settings.

They are the part between each page's markers; ``make docs`` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from userspace_proxy.config.ignored import FIELDS, FLAGS, IgnoredSetting
from userspace_proxy.config.setting_table import Setting, Topic
from userspace_proxy.config.settings import TABLE, Settings

from .markdown import replace_part, table

DOCS = Path(__file__).resolve().parents[2] / "docs"

# kube-proxy's flags without a field in its file.
_FLAGS_ONLY = frozenset({"config", "master", "cleanup", "write-config-to"})
# Older flags, read by the module ``flags``: the port of an address that has a flag of its own.
_PORTS = {"healthz-port": "healthz-bind-address", "metrics-port": "metrics-bind-address"}


def configuration() -> str:
    """Return the tables of docs/configuration.md: all settings, and what is ignored."""
    lines: list[str] = []
    for topic in Topic:
        rows = [_setting(name, row) for name, row in TABLE.items() if row.topic is topic]
        headings = ("flag", "in the file", "value", "default", "what it does")
        lines += [f"### {topic}", "", table(headings, rows), ""]
    lines += ["## kube-proxy's flags that are ignored", "", _ignored(FLAGS, "--"), ""]
    lines += ["## KubeProxyConfiguration's fields that are ignored", "", _ignored(FIELDS, "")]
    return "\n".join(lines)


def kube_proxy() -> str:
    """Return the tables of docs/kube-proxy.md: the effect of each kube-proxy flag and field."""
    used = [row for row in TABLE.values() if row.kube_field or row.flag in _FLAGS_ONLY]
    # Where kube-proxy's name is an alias, the flag itself is this proxy's.
    flags = {flag: _effect(row) for row in used for flag in row.aliases or (row.flag,)}
    flags |= {old: ("used", f"the port of `--{new}`; 0: off") for old, new in _PORTS.items()}
    fields = {row.kube_field: _effect(row) for row in used if row.kube_field}
    lines = ["## Flags", "", _effects("flag", "--", flags, FLAGS), ""]
    lines += ["## Fields of KubeProxyConfiguration", "", _effects("field", "", fields, FIELDS)]
    return "\n".join(lines)


def configuration_page(page: str) -> str:
    """Return docs/configuration.md with tables that are up to date."""
    return replace_part(page, configuration())


def kube_proxy_page(page: str) -> str:
    """Return docs/kube-proxy.md with tables that are up to date."""
    return replace_part(page, kube_proxy())


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


def _ignored(rows: Mapping[str, IgnoredSetting], prefix: str) -> str:
    names: dict[str, list[str]] = {}
    for name, row in rows.items():
        names.setdefault(row.reason, []).append(f"`{prefix}{name}`")
    by_reason = ((", ".join(ignored), reason) for reason, ignored in names.items())
    return table(("ignored", "because"), by_reason)


def _effect(row: Setting) -> tuple[str, str]:
    return ("no effect", row.no_effect) if row.no_effect else ("used", row.help)


def _effects(
    heading: str,
    prefix: str,
    used: Mapping[str, tuple[str, str]],
    ignored: Mapping[str, IgnoredSetting],
) -> str:
    # Used ones stay in the table's order, where a sentence may refer to the one before it.
    effects = {**used, **{name: ("ignored", ignored[name].reason) for name in sorted(ignored)}}
    rows = ((f"`{prefix}{name}`", *effect) for name, effect in effects.items())
    return table((heading, "here", "what it does, or why it has no effect"), rows)
