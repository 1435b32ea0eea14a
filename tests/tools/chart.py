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

SETTINGS = {"steering": "steering", "path": "path", "socketLB": "socket_lb"}
"""Values that are choices of settings, with those; all others are flags there."""


def metadata(text: str) -> str:
    """Return Chart.yaml with the package's version."""
    return re.sub(r"(?m)^((?:appV|v)ersion:).*$", rf"\1 {__version__}", text)


def schema(text: str) -> str:
    """Return values.schema.json with what the table of settings contains about them."""
    parsed = json.loads(text)
    choices = get_type_hints(Settings)
    for value, name in SETTINGS.items():
        texts = list(get_args(choices[name]))
        parsed["properties"][value] = {
            "description": TABLE[name].help,
            # YAML 1.1 reads off as false.
            "enum": [*texts, False] if "off" in texts else texts,
            "default": getattr(Settings(), name),
        }
    return json.dumps(parsed, indent=2, ensure_ascii=False) + "\n"
