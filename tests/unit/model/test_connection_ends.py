"""The sides that end a connection."""

from userspace_proxy.model.connection_ends import EndedBy


def test_sides_are_words():
    assert [str(side) for side in EndedBy] == ["", "client", "endpoint", "proxy"]
