"""Tests of the commands run and cleanup, with substitutes for the functions they call."""

import gc
import sys
from types import ModuleType

import pytest

from userspace_proxy.cli import main
from userspace_proxy.version import __version__, format_version, own_commit

VERSION = format_version(__version__, own_commit())


@pytest.mark.parametrize(
    "words",
    [
        pytest.param([], id="nothing"),
        pytest.param(["--v=2"], id="flags-only"),
        pytest.param(["run", "--v=2"], id="run"),
    ],
)
def test_run_is_the_default_command(words, substitutes, clean_logging):
    calls = substitutes()
    assert main(words) == 0
    assert [call[0] for call in calls] == ["run_agent"]


def test_run_disables_garbage_collection_at_startup(monkeypatch, clean_logging):
    collects = []
    agent = ModuleType("userspace_proxy.agent.run")
    monkeypatch.setattr(
        agent, "run_agent", lambda *_: collects.append(gc.isenabled()) or 0, raising=False
    )
    monkeypatch.setitem(sys.modules, agent.__name__, agent)
    assert main([]) == 0
    assert [*collects, gc.isenabled()] == [False, True]


def test_run_passes_settings_and_warnings_to_the_agent(substitutes, clean_logging):
    calls = substitutes(outcome=1)
    assert main(["--hostname-override=node-1", "--ipvs-scheduler=rr"]) == 1
    ((_, settings, warnings, _, dropped_log_lines, _),) = calls
    assert dropped_log_lines() == 0
    assert settings.hostname_override == "node-1"
    assert warnings == (
        "ignored --ipvs-scheduler: there are no IPVS rules (docs/paths.md)",
    )  # fmt: skip


@pytest.mark.parametrize("words", [["cleanup"], ["run", "--cleanup"], ["--cleanup", "--v=2"]])
def test_cleanup_can_be_a_command_or_a_flag(words, substitutes, clean_logging):
    calls = substitutes()
    assert main(words) == 0
    assert [call[0] for call in calls] == ["cleanup"]


def test_cleanup_reports_ignored_settings(substitutes, clean_logging, capsys):
    substitutes()
    main(["cleanup", "--proxy-mode=ipvs"])
    assert capsys.readouterr().err == (
        "warning: --proxy-mode=ipvs has no effect: this proxy runs in userspace mode\n"
    )


@pytest.mark.parametrize("words", [["--version"], ["run", "--version"], ["--version=raw"]])
def test_version_is_printed(words, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out == f"userspace-proxy {VERSION}\n"


def test_the_version_flag_can_be_set_to_false(substitutes, clean_logging):
    calls = substitutes()
    assert main(["--version=false"]) == 0
    assert [call[0] for call in calls] == ["run_agent"]


def test_write_config_writes_settings_and_exits(substitutes, tmp_path, capsys):
    calls = substitutes()
    path = tmp_path / "settings.yaml"
    assert main([f"--write-config-to={path}", "--proxy-mode=ipvs"]) == 0
    assert "mode: ipvs\n" in path.read_text()
    assert capsys.readouterr().err.startswith("warning: --proxy-mode=ipvs has no effect")
    assert calls == []
