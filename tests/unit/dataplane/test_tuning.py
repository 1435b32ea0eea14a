from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BUFFER_BYTES


def test_no_datagram_is_larger_than_the_buffer():
    assert BUFFER_BYTES > 65527


def test_the_last_endpoint_is_waited_for_longer_than_the_others():
    assert Tuning().last_connect_timeout_s > Tuning().connect_timeout_s
