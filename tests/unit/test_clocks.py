"""Tests of clocks that keep running when a test freezes time."""

from __future__ import annotations

import ast
import importlib
import re
import sys
import time
import types
from pathlib import Path

import pytest

from userspace_proxy import clocks

ROOT = Path(__file__).parents[2]
READS = re.compile(r"\btime\.(?:monotonic|time)\b")
ITS_OWN = {
    Path(clocks.__file__),
    ROOT / "pytest-userspace-proxy/userspace_proxy_testing/sandbox/reaper.py",
}
"""Modules that may read the time: ``clocks``, and a program that can't import it."""


@pytest.fixture
def frozen(monkeypatch):
    """Replace freezegun, and freeze the time in which the test imports ``clocks``."""
    api = types.ModuleType("freezegun.api")
    api.real_monotonic, api.real_time = time.monotonic, time.time
    monkeypatch.setitem(sys.modules, "freezegun.api", api)
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    monkeypatch.setattr(time, "time", lambda: 7.0)
    yield
    monkeypatch.undo()
    importlib.reload(clocks)


def test_clocks_imported_in_frozen_time_keep_running(frozen):
    read = importlib.reload(clocks).Clocks
    assert read.monotonic() != 7.0
    assert read.time() > 1e9


def test_no_module_reads_a_clock_that_tests_can_freeze():
    found = [
        f"{path}:{node.lineno}"
        for folder in ("userspace_proxy", "kubectl-userspace-proxy", "pytest-userspace-proxy")
        for path in (ROOT / folder).rglob("*.py")
        if path not in ITS_OWN and READS.search(text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
        and node.attr in ("monotonic", "time")
    ]
    assert found == []
