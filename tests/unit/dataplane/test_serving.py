import pytest

from userspace_proxy.dataplane import Serving
from userspace_proxy.model import Handling, Hold, SocketAddress

POD_A, POD_B, POD_C = (SocketAddress(f"10.0.0.{number}", 80) for number in (1, 2, 3))
PARTNERS = ("203.0.113.0/24",)


@pytest.mark.parametrize(
    ("serving", "is_refusing"),
    [
        pytest.param(Serving(), True, id="no-endpoint"),
        pytest.param(Serving([POD_A]), False, id="an-endpoint-serves"),
        pytest.param(Serving(outside=()), True, id="no-endpoint-for-clients-outside-either"),
        pytest.param(Serving(outside=[POD_A]), False, id="those-outside-are-served"),
        pytest.param(Serving([POD_A], outside=()), False, id="those-inside-are-served"),
        pytest.param(Serving(admits=PARTNERS), True, id="no-endpoint-for-admitted-clients"),
        pytest.param(Serving(admits=()), False, id="all-are-dropped"),
        pytest.param(Serving(handling=Handling(hold=Hold(60))), False, id="they-wait"),
        pytest.param(Serving([POD_A], admits=()), False, id="all-are-dropped-despite-an-endpoint"),
    ],
)
def test_clients_are_refused_without_endpoints_unless_they_are_dropped(serving, is_refusing):
    assert serving.is_refusing == is_refusing


@pytest.mark.parametrize(
    ("endpoints", "outside", "everybody"),
    [
        pytest.param((), None, (), id="none"),
        pytest.param((POD_B, POD_A), None, (POD_B, POD_A), id="the-same-for-all"),
        pytest.param((POD_A, POD_B), (POD_B,), (POD_A, POD_B), id="some-of-them-for-outside"),
        pytest.param((POD_A,), (POD_C, POD_A), (POD_A, POD_C), id="others-for-outside"),
        pytest.param((), (POD_C,), (POD_C,), id="for-outside-alone"),
        pytest.param((POD_A,), (), (POD_A,), id="none-for-outside"),
    ],
)
def test_every_endpoint_is_named_once(endpoints, outside, everybody):
    assert Serving(endpoints, outside=outside).all_endpoints == everybody
