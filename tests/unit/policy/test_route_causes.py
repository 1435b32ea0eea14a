import pytest

from userspace_proxy.model import CauseCode, Failure, SocketAddress
from userspace_proxy.policy.causes import dial_failed, resets
from userspace_proxy.policy.route_causes import by_own_route, shows_own_route

POD = SocketAddress("10.244.1.8", 8080)


@pytest.mark.parametrize(
    ("failure", "why", "command"),
    [
        (Failure.NO_ROUTE, "this node has no route to 10.244.1.8", "`ip route get 10.244.1.8`"),
        (
            Failure.ROUTE_PROHIBITS,
            "a route or routing rule of this node prohibits it",
            "`ip route show table all type prohibit match 10.244.1.8; ip rule`",
        ),
        (
            Failure.ROUTE_UNREACHABLE,
            "a route of this node says so (type unreachable)",
            "`ip route show table all type unreachable match 10.244.1.8`",
        ),
    ],
    ids=["none", "prohibit", "unreachable"],
)
def test_a_route_of_this_node_is_no_firewalls_work(failure, why, command):
    cause = by_own_route(POD, failure)
    assert (cause.code, cause.object) == (CauseCode.ENDPOINT_UNREACHABLE, "10.244.1.8:8080")
    assert str(cause) == f"10.244.1.8:8080 is unreachable: {why}"
    assert command in cause.hint
    assert "firewall" not in cause.hint


def test_rules_are_shown_of_the_family_of_the_address():
    assert (
        "; ip -6 rule`" in by_own_route(SocketAddress("fd00::8", 80), Failure.ROUTE_PROHIBITS).hint
    )


def test_a_remedy_that_shows_a_route_is_known_by_it():
    failures = Failure.ROUTE_PROHIBITS, Failure.ROUTE_UNREACHABLE
    routes = [by_own_route(POD, failure) for failure in failures]
    others = [resets(POD), dial_failed(POD, Failure.HOST_UNREACHABLE, "")]
    assert [shows_own_route(cause) for cause in (*routes, *others)] == [True, True, False, False]
