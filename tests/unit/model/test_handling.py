from userspace_proxy.model import DEFAULT_HANDLING, Balance, Handling, Hold


def test_by_default_connections_take_turns_and_keep_their_client_addresses():
    assert Handling() == DEFAULT_HANDLING
    assert (DEFAULT_HANDLING.balance, DEFAULT_HANDLING.keeps_clients) == (Balance.ROUND_ROBIN, True)


def test_by_default_no_client_waits_for_an_endpoint():
    assert DEFAULT_HANDLING.hold is None
    assert Hold(60).connections == 1000
