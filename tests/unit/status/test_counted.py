from userspace_proxy.status.counted import NO_TIMES, NO_WAITS, Times, Waits


def test_before_the_first_client_nothing_has_been_counted():
    assert Times() == NO_TIMES == Times((), (), 0.0)
    assert Waits() == NO_WAITS == Waits(0, 0.0, 0, 0, 0, 0)
