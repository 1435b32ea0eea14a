"""The test kit on a machine where IPv6 is switched off."""

from __future__ import annotations

import contextlib

import pytest

from tests.kit.test_plugin import PLUGIN
from tests.netns import Net

pytestmark = pytest.mark.netns
pytest_plugins = ["pytester"]

TESTS = """
def test_ipv4(service_proxy):
    assert service_proxy.service("web").url

def test_ipv6(service_proxy):
    service_proxy.service("web", cluster_ip="::1")
"""
REASON = "*service proxy: IPv6 is switched off on this machine (sysctl *disable_ipv6=0)*"


@pytest.mark.parametrize(
    ("arguments", "outcomes"),
    [((), {"skipped": 1}), (("--service-proxy-require",), {"failed": 1})],
)
def test_what_needs_ipv6_is_skipped_with_the_reason(pytester, arguments, outcomes):
    pytester.makepyfile(TESTS)
    with contextlib.closing(Net("no-ipv6")) as net:
        net.run("for f in /proc/sys/net/ipv6/conf/*/disable_ipv6; do echo 1 > $f; done")
        with net:
            result = pytester.runpytest_subprocess(*PLUGIN, "-rs", *arguments)
    result.assert_outcomes(passed=1, **outcomes)
    result.stdout.fnmatch_lines([REASON])
