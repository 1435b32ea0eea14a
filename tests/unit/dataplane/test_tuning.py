from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BUFFER_BYTES


def test_no_datagram_is_larger_than_the_buffer():
    assert BUFFER_BYTES > 65527


def test_a_client_waits_for_three_dials_at_most():
    assert Tuning().client_timeout_s == 3.0
    assert Tuning(connect_timeout_s=0.5).client_timeout_s == 1.5
