"""Memory after a first plan."""

import gc

from userspace_proxy.agent.memory import settle_memory


class Node:
    """Something that the collector looks at."""


def test_what_lives_is_out_of_the_collectors_sight_and_what_does_not_is_gone():
    alive, dead = Node(), Node()
    dead.itself = dead
    del dead
    settle_memory()
    try:
        assert not any(isinstance(thing, Node) for thing in gc.get_objects())
    finally:
        gc.unfreeze()
    assert [thing for thing in gc.get_objects() if isinstance(thing, Node)] == [alive]
