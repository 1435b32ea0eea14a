"""Errors that prevent startup on a real node: each is one line, and leaves no state behind."""

import os
import re

import pytest

from tests.node.testbed import Testbed

pytestmark = pytest.mark.netns

# Makes python-iptables unavailable, as on a machine that doesn't have it.
WITHOUT_IPTC = """raise ModuleNotFoundError("No module named 'iptc'", name="iptc")"""
NO_RIGHTS = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")
LOG_LINE = re.compile(r"\S+Z (INFO|WARNING) ")


@pytest.fixture(scope="module")
def testbed(tmp_path_factory):
    """A node whose agent isn't running."""
    with Testbed(tmp_path_factory.mktemp("agent"), "iptables", clients=()) as testbed:
        yield testbed


@pytest.fixture
def refused(testbed):
    """Yield a function that runs an agent until it exits; it returns the status and error lines."""

    def refused(*flags, command=(), env=None, before=()):
        done = testbed.agent.run(
            *flags, command=[*before, *(command or testbed.agent.command)], env=env
        )
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        return done.returncode, [line for line in lines if not LOG_LINE.match(line)]

    before = testbed.kernel()
    yield refused
    assert testbed.kernel() == before


def test_missing_python_iptables_is_reported_in_one_line_with_the_remedy(refused, tmp_path):
    (tmp_path / "iptc.py").write_text(WITHOUT_IPTC)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    assert refused(env={"PYTHONPATH": path}) == (
        1,
        [
            "error: cannot steer by iptables: python-iptables doesn't load: No module named 'iptc' "
            "(pip install .[iptables] in the checkout, or run with --steering=none)"
        ],
    )


def test_missing_capabilities_are_reported_in_one_line(refused):
    assert refused(before=NO_RIGHTS) == (
        1,
        [
            "error: cannot read the iptables table filter: Operation not permitted "
            "(grant NET_ADMIN and NET_RAW, run as root, or run with --steering=none)"
        ],
    )
