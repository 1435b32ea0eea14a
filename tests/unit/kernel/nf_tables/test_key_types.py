from userspace_proxy.kernel.nf_tables.key_types import INET_PROTO, INET_SERVICE, IPV4_ADDR, joined


def test_parts_of_a_key_begin_at_multiples_of_four_bytes():
    key = joined(IPV4_ADDR, INET_PROTO, INET_SERVICE)
    assert key.width == 12
    # As nft 1.0.6 numbers "ipv4_addr . inet_proto . inet_service".
    assert key.number == 0x730D
