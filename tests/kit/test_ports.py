import contextlib
import socket

import pytest

from userspace_proxy_testing import ports
from userspace_proxy_testing.backend import BackendError
from userspace_proxy_testing.places import BackendPlace


@pytest.fixture
def claim(monkeypatch):
    """Yield a function that claims one of two free ports; both are released at the end."""
    with contextlib.ExitStack() as stack:
        two = [ports.claim_port(BackendPlace()) for _ in range(2)]
        for claimed in two:
            claimed.claim.close()
        monkeypatch.setattr(ports, "_PORTS", [claimed.port for claimed in two])

        def claim(host="127.0.0.1"):
            claimed = ports.claim_port(BackendPlace(host))
            stack.enter_context(claimed.claim)
            return claimed

        yield claim


def test_a_claimed_port_is_below_the_ephemeral_range():
    claimed = ports.claim_port(BackendPlace())
    with claimed.claim, socket.create_server(("127.0.0.1", claimed.port)):
        assert claimed.port < 30000


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_is_not_claimed_again_until_released(claim, host):
    one, two = claim(host), claim(host)
    assert one.port != two.port
    with pytest.raises(BackendError, match="is free for the program"):
        claim(host)
    one.claim.close()
    assert claim(host).port == one.port


@pytest.mark.parametrize("used", ["0.0.0.0", "127.0.0.7"])
def test_a_port_in_use_at_any_address_is_skipped(claim, used):
    one = claim()
    one.claim.close()
    with socket.create_server((used, one.port)):
        assert claim().port != one.port


def test_an_address_missing_from_the_machine_is_an_error():
    class Elsewhere(BackendPlace):
        def bind(self, type_, address):
            return super().bind(type_, address._replace(ip="192.0.2.77"))

    with pytest.raises(OSError, match="Cannot assign"):
        ports.claim_port(Elsewhere())
