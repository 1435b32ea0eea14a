"""Generates parts of the chart: the package's version, choices of settings, and defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from userspace_proxy import __version__
from userspace_proxy.config.settings import TABLE, Settings

CHART = Path(__file__).resolve().parents[2] / "charts/userspace-proxy"
METADATA = CHART / "Chart.yaml"
SCHEMA = CHART / "values.schema.json"
VALUES = CHART / "values.yaml"
DEFAULTS = CHART / "templates/_defaults.tpl"

SETTINGS = {"steering": "steering", "path": "path", "socketLB": "socket_lb"}
"""Values with fixed choices, each with the setting that has these; all other values are flags."""


def metadata(text: str) -> str:
    """Return Chart.yaml with the package's version."""
    return re.sub(r"(?m)^((?:appV|v)ersion:).*$", rf"\1 {__version__}", text)


def schema(text: str) -> str:
    """Return values.schema.json with the choices from the table of settings."""
    parsed = json.loads(text)
    choices = get_type_hints(Settings)
    for value, name in SETTINGS.items():
        texts = list(get_args(choices[name]))
        parsed["properties"][value] = {
            "description": TABLE[name].help,
            # YAML 1.1 parses an unquoted off as false.
            "enum": [*texts, False] if "off" in texts else texts,
            "default": getattr(Settings(), name),
        }
    return json.dumps(parsed, indent=2, ensure_ascii=False) + "\n"


def defaults() -> str:
    """Return the template with the defaults of values.yaml, which templates can't read."""
    filled = _filled(yaml.safe_load(VALUES.read_text()), json.loads(SCHEMA.read_text()))
    text = yaml.safe_dump(filled, sort_keys=False)
    head = "{{/* Made from values.yaml: make docs. */}}"
    return f'{head}\n{{{{- define "userspace-proxy.defaults" -}}}}\n{text}{{{{- end }}}}\n'


def _filled(values: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return the values that the templates fill in if they are missing.

    Kubernetes objects, such as resources, aren't filled in, because a user removes their defaults
    by ``null``, which makes helm omit a value.
    """
    filled = {}
    for name, value in values.items():
        declared = schema["properties"][name]
        if not value or not isinstance(value, dict):
            filled[name] = value
        elif declared.get("additionalProperties") is False:
            filled[name] = _filled(value, declared)
    return filled
