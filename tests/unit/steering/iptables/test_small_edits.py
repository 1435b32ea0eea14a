"""Small edits of legacy tables; tests/node/test_steering_iptables.py applies them to a kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from userspace_proxy.steering.iptables.small_edits import are_few


@pytest.mark.parametrize(
    ("edits", "rules", "expected"),
    [
        pytest.param(4, 10, True, id="one-rule-of-both-sides"),
        pytest.param(5, 10, False, id="more-in-a-small-table"),
        pytest.param(26, 22_500, True, id="two-chains-of-ten-thousand-services"),
        pytest.param(27, 22_500, False, id="more-of-ten-thousand-services"),
    ],
)
def test_the_limit_of_small_edits_depends_on_the_table_size(edits, rules, expected):
    assert are_few(edits, rules) is expected


def test_loading_python_iptables_runs_no_compiler_and_loads_no_setuptools():
    script = """
import os, sys
sys.addaudithook(lambda event, args: event == "subprocess.Popen" and print(args[0]))
from userspace_proxy.steering.iptables.small_edits import SmallEdits
SmallEdits(4)
print("setuptools" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    *programs, has_setuptools = done.stdout.split()
    assert {Path(program).name for program in programs} <= {"ldconfig"}, done.stderr
    assert has_setuptools == "False"
