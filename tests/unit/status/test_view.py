import pytest

from userspace_proxy.model import Balance, Handling
from userspace_proxy.policy import Scope

from .views import make_calm_view, make_endpoint, make_port


@pytest.mark.parametrize(
    ("balance", "expected"),
    [
        pytest.param(Balance.ROUND_ROBIN, "", id="default"),
        pytest.param(Balance.LEAST_CONNECTIONS, "least-connections", id="other"),
    ],
)
def test_only_a_balance_other_than_the_default_is_shown(balance, expected):
    assert make_port(handling=Handling(balance=balance)).balance == expected


@pytest.mark.parametrize(
    ("scope", "expected"),
    [
        pytest.param(Scope.CLUSTER, "", id="cluster"),
        pytest.param(Scope.LOCAL, "only this node's endpoints", id="local"),
        pytest.param(
            Scope.LOCAL_FROM_OUTSIDE, "from outside: only this node's endpoints", id="outside"
        ),
    ],
)
def test_a_policy_is_shown_in_words(scope, expected):
    assert make_port(scope=scope).policy == expected


@pytest.mark.parametrize(
    ("state", "is_usable", "expected"),
    [
        pytest.param("not on this node", False, True, id="elsewhere"),
        pytest.param("meant for zone north", False, True, id="by-hints"),
        pytest.param("ready", True, False, id="used"),
        pytest.param("not ready", False, False, id="not-ready"),
        pytest.param("terminating, not serving", False, False, id="terminating"),
        pytest.param("refused: link-local address", False, False, id="refused"),
    ],
)
def test_an_endpoint_is_left_out_only_where_it_could_serve(state, is_usable, expected):
    assert make_endpoint("192.0.2.1:80", state, is_usable).is_left_out is expected


@pytest.mark.parametrize(
    ("service", "ports", "ignored"),
    [
        pytest.param("shop/web", ["shop/web:http", "shop/web:http"], [], id="service"),
        pytest.param("shop/web:http", ["shop/web:http", "shop/web:http"], [], id="port"),
        pytest.param("shop/we", [], [], id="not-a-part-of-a-name"),
        pytest.param("shop/db", [], ["shop/db"], id="ignored"),
    ],
)
def test_a_view_of_one_service_has_nothing_of_others(service, ports, ignored):
    view = make_calm_view().only(service)
    assert [str(port.plan.key.name) for port in view.ports] == ports
    assert [str(item.service) for item in view.ignored] == ignored
    assert view.health_checks == ()
