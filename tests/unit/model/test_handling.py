from userspace_proxy.model import DEFAULT_HANDLING, Balance, Handling


def test_by_default_connections_take_turns_and_keep_their_client_addresses():
    assert Handling() == DEFAULT_HANDLING
    assert (DEFAULT_HANDLING.balance, DEFAULT_HANDLING.keeps_clients) == (Balance.ROUND_ROBIN, True)
