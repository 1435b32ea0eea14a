"""The commands in the first lines of the examples work after README's installation.

That has pytest and no plugin but the test kit's, and examples may be copied elsewhere.
"""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .wheels import ROOT

EXAMPLES = [path.relative_to(ROOT) for path in (ROOT / "examples").glob("*pytest/test_*.py")]


def command_of(example: Path) -> list[str]:
    """Return the words of the command that an example's docstring names, without variables."""
    said = ast.get_docstring(ast.parse((ROOT / example).read_text())) or ""
    named = re.search(r"[Rr]un them by ``(?:\w+=\S+ )?pytest ([^`]+)``", said)
    assert named, f"{example} names no command"
    return named[1].split()


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
@pytest.mark.parametrize("is_checkout", [True, False], ids=["checkout", "copy"])
def test_the_command_of_an_example_finds_its_tests(
    example: Path, is_checkout: bool, tmp_path: Path
) -> None:
    root = ROOT
    if not is_checkout:
        root = tmp_path
        shutil.copytree(ROOT / example.parent, root / example.parent)
        (root / example.parent / "pytest.ini").unlink()
    found = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", *command_of(example)),
            *("-p", "userspace_proxy_testing.plugin", "-p", "no:cacheprovider"),
            *("--collect-only", "-q"),
        ],
        cwd=root,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    assert f"{example.name}::" in found.stdout


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 3
