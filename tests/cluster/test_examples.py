"""The examples for clusters without nodes pass, with a real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .build import Binaries

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull)


def test_the_example_for_pytest(cluster_binaries: Binaries) -> None:
    environment = {
        **os.environ,
        "KUBEBUILDER_ASSETS": str(cluster_binaries.folder),
        "NO_PROXY": "*",
    }
    done = subprocess.run(
        [*PYTEST, "--rootdir=.", "--service-proxy-require", "."],
        cwd=EXAMPLES / "envtest-pytest",
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr
