import pytest

from userspace_proxy.kernel.nf_tables.conditions import meets
from userspace_proxy.model import Frontend, Protocol

WEB = Frontend("10.96.7.1", 80, Protocol.TCP)
WEB_6 = Frontend("fd00:96::1", 80, Protocol.TCP)
NODE_PORT = Frontend("127.0.0.1", 30080, Protocol.TCP)
HERE = "fib daddr type local tcp dport 30080"


@pytest.mark.parametrize(
    ("condition", "frontend", "expected"),
    [
        pytest.param("", WEB, True, id="everything"),
        pytest.param("ip daddr 10.96.7.1/32 tcp dport 80", WEB, True, id="its-address"),
        pytest.param("ip daddr 10.96.0.0/12", WEB, True, id="its-range"),
        pytest.param("ip6 daddr fd00:96::/108", WEB_6, True, id="its-range-6"),
        pytest.param("ip daddr 10.96.7.1/32 …", WEB, None, id="its-address-for-some"),
        pytest.param("tcp dport 80-90", WEB, True, id="its-port"),
        pytest.param("th dport 80", WEB, True, id="its-port-of-any-protocol"),
        pytest.param("ct state new", WEB, True, id="new-connections"),
        pytest.param("… tcp dport 80", WEB, None, id="its-port-for-some"),
        pytest.param("…", WEB, None, id="not-understood"),
        pytest.param("…daddr", WEB, None, id="looked-up"),
        pytest.param("…daddr udp dport 80", WEB, False, id="looked-up-for-another-protocol"),
        pytest.param("ct state established", WEB, False, id="open-connections"),
        pytest.param("ip daddr 10.96.7.2/32", WEB, False, id="another-address"),
        pytest.param("ip daddr 10.96.0.0/12 ip daddr 10.97.0.0/16", WEB, False, id="not-both"),
        pytest.param("ip daddr 0.0.0.0/0", WEB_6, False, id="another-family"),
        pytest.param("meta nfproto ipv4", WEB_6, False, id="another-family-in-words"),
        pytest.param(HERE, NODE_PORT, True, id="this-node"),
        pytest.param("fib daddr type local tcp dport 80", WEB, False, id="not-this-node"),
        pytest.param("udp dport 80", WEB, False, id="another-protocol"),
        pytest.param("meta l4proto udp", WEB, False, id="another-protocol-without-port"),
        pytest.param("tcp dport 81", WEB, False, id="another-port"),
    ],
)
def test_a_condition_is_met_or_not_or_depends_on_the_client(condition, frontend, expected):
    assert meets(condition, frontend) is expected
