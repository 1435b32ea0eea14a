"""Forms, with rules laid out by a stand-in for python-iptables."""

from __future__ import annotations

import socket
import struct

import pytest

from userspace_proxy.steering.iptables.form import Form, FormError, JumpForm, PortForm
from userspace_proxy.steering.iptables.rules import Jump, NatRule

WEB = NatRule("tcp", "10.96.7.1", 80, 36001)
TO_NODE = NatRule("tcp", "10.96.7.1", 80, 36001, "192.0.2.1")
WEB_6 = NatRule("tcp", "fd00:96::1", 80, 36001)


def lay_out(rule: NatRule) -> bytes:
    """Fields twice, in both byte orders, among constants, as the kernel's structures have them."""
    family = socket.AF_INET6 if ":" in rule.ip else socket.AF_INET
    ip = socket.inet_pton(family, rule.ip)
    to_ip = socket.inet_pton(family, rule.to_ip) if rule.to_ip else b""
    ports = struct.pack("<HH", rule.port, rule.port)
    to_ports = struct.pack(">HH", rule.to_port, rule.to_port)
    return b"entry" + ip + b"\xff\xff tcp" + ports + b"NAT" + to_ip + to_ip + to_ports + b"end"


def form(*, version=4, is_dnat=False, build=lay_out) -> Form:
    return Form(build, "tcp", version=version, is_dnat=is_dnat)


@pytest.mark.parametrize(
    ("rule", "its_form"),
    [
        pytest.param(WEB, form(), id="redirect"),
        pytest.param(TO_NODE, form(is_dnat=True), id="dnat"),
        pytest.param(WEB_6, form(version=6), id="ipv6"),
    ],
)
def test_rules_are_written_as_python_iptables_would_and_read_back(rule, its_form):
    raw = its_form.write(rule)
    assert raw == lay_out(rule)
    assert its_form.read(raw) == rule


@pytest.mark.parametrize("changed", range(len(lay_out(WEB))))
def test_what_differs_outside_of_the_fields_is_not_ours(changed):
    raw = bytearray(lay_out(WEB))
    raw[changed] ^= 0x01
    rule = form().read(bytes(raw))
    assert rule is None or (rule != WEB and lay_out(rule) == bytes(raw))


def test_what_has_another_length_is_not_ours():
    assert form().read(lay_out(TO_NODE)) is None


@pytest.mark.parametrize(
    "build",
    [
        pytest.param(lambda rule: lay_out(rule._replace(port=1)), id="a-field-that-never-shows"),
        pytest.param(
            lambda rule: lay_out(rule) + bytes([sum(lay_out(rule)) % 256]), id="a-checksum"
        ),
        pytest.param(
            lambda rule: lay_out(rule) + b"x" * (rule.port % 3), id="a-length-that-varies"
        ),
    ],
)
def test_a_layout_that_is_not_understood_is_an_error(build):
    with pytest.raises(FormError):
        form(build=build)


def lay_out_refusal(port: int) -> bytes:
    return b"entry" + struct.pack("<HH", port, port) + b"REJECT"


def test_the_port_of_a_rule_is_read():
    refusals = PortForm(lay_out_refusal)
    assert refusals.read(lay_out_refusal(35999)) == 35999
    assert refusals.read(lay_out_refusal(35999) + b"x") is None
    assert refusals.read(lay_out_refusal(35999).replace(b"REJECT", b"ACCEPT")) is None


def lay_out_jump(jump: Jump) -> bytes:
    family = socket.AF_INET6 if ":" in jump.ip else socket.AF_INET
    all_bits = 128 if ":" in jump.ip else 32
    mask = ((1 << jump.bits) - 1 << all_bits - jump.bits).to_bytes(all_bits // 8, "big")
    ports = struct.pack("<HH", jump.first_port, jump.last_port) if jump.protocol else b""
    return b"entry" + socket.inet_pton(family, jump.ip) + mask + jump.protocol.encode() + ports


@pytest.mark.parametrize(
    ("version", "jump"),
    [
        pytest.param(4, Jump("UPROXY-O1abcd", "10.96.64.0", 18), id="network"),
        pytest.param(6, Jump("UPROXY-O1abcd", "fd00:96::1:0", 112), id="ipv6-network"),
        pytest.param(4, Jump("UPROXY-O1abcd", "192.0.2.1", 32, "tcp", 30720, 31743), id="ports"),
        pytest.param(6, Jump("UPROXY-O1abcd", "fd00::1", 128, "udp", 0, 65535), id="ipv6-ports"),
    ],
)
def test_jumps_are_written_as_python_iptables_would_and_read_back(version, jump):
    form = JumpForm(lay_out_jump, jump.protocol, version=version)
    raw = form.write(jump)
    assert raw == lay_out_jump(jump)
    assert form.read(raw, jump.chain) == jump
    assert form.read(raw + b"x", jump.chain) is None
    assert form.read(b"x" + raw[1:], jump.chain) is None


def test_jumps_that_are_laid_out_otherwise_are_an_error():
    with pytest.raises(FormError):
        JumpForm(lambda jump: lay_out_jump(jump._replace(bits=30)), "", version=4)
