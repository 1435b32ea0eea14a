import pytest

from userspace_proxy.status.view import EndpointView

from .views import make_port


@pytest.mark.parametrize(
    ("port", "expected"),
    [pytest.param("http", "shop/web:http", id="named"), pytest.param("", "shop/web", id="unnamed")],
)
def test_a_service_port_is_named_as_kube_proxy_names_it(port, expected):
    assert make_port("web", port=port).name == expected


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
    assert EndpointView("192.0.2.1:80", state, is_usable).is_left_out is expected
