import pytest

from tests.unit.dataplane.peers import TcpEndpoint
from userspace_proxy.kernel.ephemeral import EPHEMERAL, EphemeralPorts


@pytest.fixture
def told(tmp_path):
    """A copy of ip_local_port_range with the kernel's default range."""
    path = tmp_path / "ip_local_port_range"
    path.write_text("32768\t60999\n")
    return path


@pytest.mark.parametrize(
    ("port", "is_one"),
    [
        pytest.param(32767, False, id="below"),
        pytest.param(32768, True, id="first"),
        pytest.param(60999, True, id="last"),
        pytest.param(61000, False, id="above"),
    ],
)
def test_only_ports_inside_the_kernels_range_are_ephemeral(told, port, is_one):
    assert EphemeralPorts(told).includes(port, now=0.0) is is_one


def test_the_ports_of_the_ephemeral_range_are_counted(told):
    assert EphemeralPorts(told).count(now=0.0) == 28_232


def test_a_changed_ephemeral_range_is_reread_after_ten_seconds(told):
    ports = EphemeralPorts(told)
    assert not ports.includes(8080, now=100.0)
    told.write_text("1024 65535")
    assert not ports.includes(8080, now=109.9)
    assert ports.includes(8080, now=110.0)


@pytest.mark.parametrize("text", [None, "", "many"])
def test_if_the_range_is_unreadable_every_port_counts_as_ephemeral(told, text):
    told.unlink()
    if text is not None:
        told.write_text(text)
    assert EphemeralPorts(told).includes(80, now=0.0)
    assert EphemeralPorts(told).count(now=0.0) == 65_536


def test_a_kernel_chosen_port_is_ephemeral():
    endpoint = TcpEndpoint()
    endpoint.close()
    assert EPHEMERAL.includes(endpoint.address.port, now=0.0)
