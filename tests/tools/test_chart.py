import json
from typing import Any

import pytest
import yaml

from userspace_proxy.config.settings import TABLE, Settings

from .chart import CHART, SCHEMA, SETTINGS, schema

VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.mark.parametrize(("value", "name"), SETTINGS.items())
def test_a_chart_default_equals_the_default_of_its_setting(value: str, name: str) -> None:
    assert VALUES[value] == getattr(Settings(), name)


@pytest.mark.parametrize(("value", "name"), SETTINGS.items())
def test_the_setting_accepts_each_value_of_the_schema_enum(value: str, name: str) -> None:
    written = json.loads(schema(SCHEMA.read_text()))["properties"][value]["enum"]
    # YAML parses an unquoted "off" as False.
    choices = [choice for choice in written if choice is not False]
    assert [TABLE[name].kind.parse(choice) for choice in choices] == choices
    assert TABLE[name].kind.name == "|".join(choices)


def test_the_schema_describes_exactly_the_charts_values() -> None:
    parsed = json.loads(SCHEMA.read_text())
    assert_described(VALUES, parsed)
    assert parsed["properties"].keys() - VALUES.keys() == {"global", "socketLBProxyPorts"}


def test_each_template_starts_by_including_the_defaults() -> None:
    # helm renders all templates with one map of values, so without it only the first would fail.
    rendered = [path for path in (CHART / "templates").iterdir() if path.name[0] != "_"]
    lines = {path.name: path.read_text().splitlines()[:2] for path in rendered}
    wanted = '{{- include "userspace-proxy.withDefaults" . }}'
    assert len(lines) > 9
    assert [name for name, first in lines.items() if wanted not in first] == []


def assert_described(values: dict[str, Any], described: dict[str, Any]) -> None:
    if "properties" not in described:
        return
    assert described["additionalProperties"] is False
    assert values.keys() <= described["properties"].keys()
    for name, value in values.items():
        if isinstance(value, dict):
            assert_described(value, described["properties"][name])
