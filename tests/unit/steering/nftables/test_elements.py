import pytest

from userspace_proxy.model import Frontend, IPFamily, Protocol
from userspace_proxy.steering.nftables.elements import (
    FRONTEND,
    frontend_key,
    port_key,
    read_frontend,
)

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
DNS_6 = Frontend("fd00:96::a", 53, Protocol.UDP)
MAPPED = Frontend("::ffff:a00:1", 53, Protocol.UDP)


def test_a_frontends_key_is_its_address_protocol_and_port_padded_to_four_bytes():
    assert frontend_key(WEB).hex(" ", 4) == "0a600701 06000000 00500000"


def test_the_key_of_a_guarded_port_is_protocol_and_port():
    assert port_key(Protocol.UDP, 36001).hex(" ", 4) == "11000000 8ca10000"


@pytest.mark.parametrize("frontend", [WEB, DNS_6, MAPPED], ids=str)
def test_a_frontend_is_read_as_it_was_written(frontend):
    key = frontend_key(frontend)
    assert len(key) == FRONTEND[frontend.family].width
    assert read_frontend(key, frontend.family) == frontend


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(b"", id="catch-all"),
        pytest.param(frontend_key(DNS_6), id="other-family"),
        pytest.param(frontend_key(WEB)[:4] + bytes([132, 0, 0, 0, 0, 80, 0, 0]), id="sctp"),
        pytest.param(frontend_key(WEB)[:8] + bytes(4), id="no-port"),
    ],
)
def test_an_element_that_this_proxy_never_writes_is_not_a_frontend(key):
    assert read_frontend(key, IPFamily.IPV4) is None
