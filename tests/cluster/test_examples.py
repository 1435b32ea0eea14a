"""The examples for clusters without nodes pass, with a real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .build import Binaries
from .tools import ENVTEST_GO, path_of

pytestmark = [pytest.mark.cluster, pytest.mark.long]

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull)


@pytest.fixture
def environment(cluster_binaries: Binaries) -> dict[str, str]:
    """The environment that users of the examples set."""
    ours = {
        "KUBEBUILDER_ASSETS": str(cluster_binaries.folder),
        "NO_PROXY": "*",
        "USERSPACE_PROXY": str(Path(sys.executable).with_name("userspace-proxy")),
    }
    return os.environ | ours


def test_the_pytest_example_passes(environment: dict[str, str]) -> None:
    done = subprocess.run(
        [*PYTEST, "--rootdir=.", "--service-proxy-require", "."],
        cwd=EXAMPLES / "envtest-pytest",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.long
def test_the_go_example_passes(environment: dict[str, str]) -> None:
    tests = path_of(ENVTEST_GO)
    if not tests.is_file():
        pytest.skip(f"no {tests.name} (run: make build)")
    done = subprocess.run(
        [tests, "-test.v"],
        cwd=ENVTEST_GO.go_module,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("\nPASS\n"), done.stdout + done.stderr
