import pytest

from userspace_proxy.model import SocketAddress
from userspace_proxy_testing.backend import Backend, FaultControl
from userspace_proxy_testing.places import BackendPlace

ADDRESS = SocketAddress("192.0.2.1", 80)


@pytest.fixture
def backend():
    return Backend("web-1", ADDRESS, BackendPlace())


def test_an_external_backend_can_be_neither_stopped_nor_started(backend):
    with pytest.raises(TypeError, match="served by another program: it can't be stopped here"):
        backend.stop()
    with pytest.raises(TypeError, match="it can't be started here"):
        backend.start()
    backend.close()
    backend.close()
    assert repr(backend) == "<Backend web-1 at 192.0.2.1:80>"


def test_a_loopback_backend_has_no_pod(backend):
    with pytest.raises(TypeError, match="has no pod: only backends of service_network"):
        backend.pod  # noqa: B018 - a property that raises


def test_a_backend_fault_is_injected_at_the_services_endpoint(backend):
    set_ = []
    backend.attach(
        FaultControl(
            lambda type_, **more: set_.append((type_, more)),
            lambda **more: set_.append(("healed", more)),
        )
    )
    backend.fault("latency", latency=100)
    backend.heal()
    where = {"endpoint": ADDRESS}
    more = {"stream": "downstream", "toxicity": 1.0, "latency": 100}
    assert set_ == [("latency", where | more), ("healed", where)]
