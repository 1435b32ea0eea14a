"""Derives what the chart repeats of the package: its version, and the choices of settings."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import get_args, get_type_hints

from userspace_proxy import __version__
from userspace_proxy.config.settings import TABLE, Settings

CHART = Path(__file__).resolve().parents[2] / "charts/userspace-proxy"
METADATA = CHART / "Chart.yaml"
SCHEMA = CHART / "values.schema.json"

SETTINGS = ("steering", "path")
"""The settings that have values of their own; all others are flags there."""


def metadata(text: str) -> str:
    """Return Chart.yaml with the package's version."""
    return re.sub(r"(?m)^((?:appV|v)ersion:).*$", rf"\1 {__version__}", text)


def schema(text: str) -> str:
    """Return values.schema.json with what the table of settings contains about them."""
    parsed = json.loads(text)
    choices = get_type_hints(Settings)
    for name in SETTINGS:
        parsed["properties"][name] = {
            "description": TABLE[name].help,
            "enum": list(get_args(choices[name])),
            "default": getattr(Settings(), name),
        }
    return json.dumps(parsed, indent=2, ensure_ascii=False) + "\n"
