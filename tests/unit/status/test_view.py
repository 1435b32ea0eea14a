import pytest

from .views import make_port


@pytest.mark.parametrize(
    ("port", "expected"),
    [pytest.param("http", "shop/web:http", id="named"), pytest.param("", "shop/web", id="unnamed")],
)
def test_a_service_port_is_named_as_kube_proxy_names_it(port, expected):
    assert make_port("web", port=port).name == expected
