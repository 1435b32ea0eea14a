"""Files for users and bots in ``.github``: issue forms, owners, dependency updates."""

from __future__ import annotations

import fnmatch
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from userspace_proxy.cli.command_table import COMMANDS

from .workflows import ROOT

FOLDER = ROOT / ".github"
FORMS = [
    path for path in sorted((FOLDER / "ISSUE_TEMPLATE").glob("*.yml")) if path.name != "config.yml"
]
TYPES = {"checkboxes", "dropdown", "input", "markdown", "textarea"}


def read(path: Path) -> Mapping[str, Any]:
    form: Mapping[str, Any] = yaml.safe_load(path.read_text())
    return form


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_an_issue_form_has_the_fields_github_requires(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= form.keys()
    assert {field["type"] for field in form["body"]} <= TYPES
    questions = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["attributes"]["label"] for field in questions)
    names = [field["id"] for field in questions]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("command", ["explain", "check"])
def test_the_bug_form_asks_for_command_output(command: str) -> None:
    fields = {field.get("id"): field for field in read(FOLDER / "ISSUE_TEMPLATE/bug.yml")["body"]}
    assert f"userspace-proxy {command} " in fields[command]["attributes"]["description"]
    assert "-o json`" in fields[command]["attributes"]["description"]
    assert fields[command]["attributes"]["render"] == "json"
    assert command in COMMANDS


def test_dependabot_updates_each_go_module() -> None:
    updates = {one["package-ecosystem"]: one for one in read(FOLDER / "dependabot.yml")["updates"]}
    patterns = updates["gomod"]["directories"]
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*go.mod"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = [f"/{Path(name).parent}" for name in listed.splitlines()]
    assert folders
    for folder in folders:
        # A star doesn't match a slash in Dependabot's patterns.
        parts = (pattern for pattern in patterns if pattern.count("/") == folder.count("/"))
        assert any(fnmatch.fnmatchcase(folder, pattern) for pattern in parts), folder


def variables() -> list[str]:
    listed: list[str] = read(FOLDER / "actionlint.yaml")["config-variables"]
    return listed


def run_release_variables(**given: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "release-variables"]
    return subprocess.run(command, cwd=ROOT, env=os.environ | given, capture_output=True, text=True)


@pytest.mark.parametrize("missing", variables())
def test_a_release_stops_if_a_variable_is_missing(missing: str) -> None:
    done = run_release_variables(**{name: "" if name == missing else "x" for name in variables()})
    assert done.returncode != 0
    assert f"the repository's variable {missing} isn't set" in done.stderr


def test_a_release_continues_with_all_variables() -> None:
    assert run_release_variables(**dict.fromkeys(variables(), "x")).returncode == 0


def test_the_release_workflow_passes_all_variables_to_make() -> None:
    steps = read(FOLDER / "workflows/release.yml")["jobs"]["build"]["steps"]
    (step,) = [one for one in steps if one.get("run") == "make release-variables"]
    assert step["env"] == {name: f"${{{{ vars.{name} }}}}" for name in variables()}
