from __future__ import annotations

import pytest

from userspace_proxy.steering.conntrack import Association, UdpFrontend, forget_stale

CLIENT = ("10.1.0.2", 40000)
DNS = UdpFrontend("10.96.0.10", 53)
STEERED = Association(CLIENT, DNS, ("10.1.0.1", 36002))
PASSED_BY = Association(CLIENT, DNS, ("10.96.0.10", 53))


@pytest.mark.parametrize(
    ("association", "port", "expected"),
    [
        pytest.param(STEERED, 36002, True, id="to-its-port"),
        pytest.param(STEERED, 36003, False, id="to-an-old-port"),
        pytest.param(STEERED, None, False, id="steered-and-shouldnt-be"),
        pytest.param(PASSED_BY, 36002, False, id="made-before-the-rule"),
        pytest.param(PASSED_BY, None, True, id="never-ours"),
    ],
)
def test_where_an_association_leads(association, port, expected):
    assert association.leads_to(port) is expected


def test_without_frontends_nothing_is_asked():
    assert forget_stale(4, {}) == 0
