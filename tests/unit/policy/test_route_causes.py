import errno

import pytest

from userspace_proxy.model import CauseCode, SocketAddress
from userspace_proxy.model.error_numbers import NO_ROUTE, OWN_ROUTES, PROHIBITED, UNREACHABLE_TYPE
from userspace_proxy.policy.causes import NO_DATAGRAM, NO_HOST, dial_failed, resets
from userspace_proxy.policy.route_causes import by_own_route, shows_own_route

POD = SocketAddress("10.244.1.8", 8080)


@pytest.mark.parametrize(
    ("number", "why", "command"),
    [
        (NO_ROUTE, "this node has no route to 10.244.1.8", "`ip route get 10.244.1.8`"),
        (
            PROHIBITED,
            "a route or routing rule of this node prohibits it",
            "`ip route show table all type prohibit match 10.244.1.8; ip rule`",
        ),
        (
            UNREACHABLE_TYPE,
            "a route of this node says so (type unreachable)",
            "`ip route show table all type unreachable match 10.244.1.8`",
        ),
    ],
    ids=["none", "prohibit", "unreachable"],
)
def test_a_route_of_this_node_is_no_firewalls_work(number, why, command):
    cause = by_own_route(POD, number)
    assert (cause.code, cause.object) == (CauseCode.ENDPOINT_UNREACHABLE, "10.244.1.8:8080")
    assert str(cause) == f"10.244.1.8:8080 is unreachable: {why}"
    assert command in cause.hint
    assert "firewall" not in cause.hint


def test_rules_are_shown_of_the_family_of_the_address():
    assert "; ip -6 rule`" in by_own_route(SocketAddress("fd00::8", 80), PROHIBITED).hint


def test_no_socket_and_no_other_observation_has_a_number_of_these():
    own = set(OWN_ROUTES.values())
    assert own.isdisjoint({*OWN_ROUTES, NO_HOST, NO_DATAGRAM, errno.EINVAL, errno.ETIMEDOUT})
    assert len(own) == len(OWN_ROUTES)


def test_a_remedy_that_shows_a_route_is_known_by_it():
    routes = [by_own_route(POD, number) for number in (PROHIBITED, UNREACHABLE_TYPE)]
    others = [resets(POD), dial_failed(POD, errno.EHOSTUNREACH, "")]
    assert [shows_own_route(cause) for cause in (*routes, *others)] == [True, True, False, False]
