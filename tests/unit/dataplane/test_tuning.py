from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BUFFER_BYTES


def test_the_receive_buffer_holds_the_largest_datagram():
    assert BUFFER_BYTES > 65527


def test_the_client_timeout_is_the_duration_of_three_dials():
    assert Tuning().client_timeout_s == 3.0
    assert Tuning(connect_timeout_s=0.5).client_timeout_s == 1.5
