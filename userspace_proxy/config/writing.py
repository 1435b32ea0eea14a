"""Writes settings as a ``--config`` file: kube-proxy's document and this program's document.

Reading it yields the same settings, except flags without a field. Comments contain fields' help.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from ..errors import ConfigError
from ..model.scalars import read_plain
from .setting_table import Setting
from .settings import TABLE, Settings

_KUBE_HEAD = """\
# Settings that kube-proxy also has, in kube-proxy's own form.
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
"""
_OWN_HEAD = """\
---
# Settings that only userspace-proxy has.
apiVersion: userspace-proxy.io/v1alpha1
kind: UserspaceProxyConfiguration
"""


def write_config(settings: Settings, path: str) -> None:
    """Write settings to a file; an existing file is replaced.

    Raises:
        ConfigError: The file can't be written.
    """
    try:
        Path(path).write_text(render_config(settings), encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot write --write-config-to={path}: {exc.strerror}") from exc


def render_config(settings: Settings) -> str:
    """Return both documents as YAML, except settings that have only a flag."""
    kube, own = [_KUBE_HEAD], [_OWN_HEAD]
    parents: list[str] = []
    for name, row in sorted(TABLE.items(), key=lambda item: "." in item[1].kube_field):
        value = row.kind.write(getattr(settings, name))
        if row.kube_field:
            *branch, leaf = row.kube_field.split(".")
            if branch != parents:
                kube += [f"{'  ' * depth}{part}:\n" for depth, part in enumerate(branch)]
                parents = branch
            kube.append(_field(leaf, value, row, "  " * len(branch)))
        elif row.own_field:
            own.append(_field(row.own_field, value, row, ""))
    return "".join([*kube, *own])


def _field(key: str, value: object, row: Setting, indent: str) -> str:
    return f"{indent}# {row.help}\n{indent}{key}: {_plain(value)}\n"


def _plain(value: object) -> str:
    """Return a value as JSON, which is valid YAML, without unnecessary quotes."""
    if isinstance(value, list | Mapping):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, str) and value.isalpha() and read_plain(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)
