"""Several connections in any order of events: bytes are equal, or both ends see an error."""

import asyncio

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.dataplane.actors import (
    ACTIONS,
    ONE_SIDE,
    OTHER_SIDE,
    Actor,
    assert_equal_or_told,
    end_all,
)
from tests.unit.dataplane.rig import Rig, open_sockets
from userspace_proxy.dataplane import Tuning
from userspace_proxy.dataplane.tuning import BUFFER_BYTES

CONNECTIONS = 3
# Which connection, which end of it, and what it does.
STEPS = st.lists(
    st.tuples(st.integers(0, CONNECTIONS - 1), st.sampled_from([0, 1]), ACTIONS), max_size=30
)


async def play(rig, has_dead_endpoint, steps):
    """Let the ends of all connections act, then end what is still open; return the pairs."""
    pod = rig.endpoint()
    web = rig.service(*([rig.refusing()] if has_dead_endpoint else []), pod.address)
    pairs = []
    for _ in range(CONNECTIONS):
        client, server = await rig.pair(web, pod)
        pairs.append((Actor(client, ONE_SIDE), Actor(server, OTHER_SIDE)))
    for which, side, (what, how) in steps:
        await pairs[which][side].act(what, how)
    await end_all(rig, [actor for pair in pairs for actor in pair])
    return pairs


@pytest.mark.long
@pytest.mark.parametrize(
    "factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"]
)
@settings(max_examples=400, deadline=None)
@given(
    max_pipes=st.sampled_from([0, 1, 32]),
    buffer_bytes=st.sampled_from([4096, 65536, BUFFER_BYTES]),
    has_dead_endpoint=st.booleans(),
    steps=STEPS,
)
def test_events_in_any_order_lose_no_byte_silently(
    factory, max_pipes, buffer_bytes, has_dead_endpoint, steps
):
    async def check():
        rig = Rig(Tuning(max_pipes=max_pipes))
        rig.engine.reactor.calls.limit_buffer(buffer_bytes)
        try:
            for pair in await play(rig, has_dead_endpoint, steps):
                assert_equal_or_told(*pair)
            assert len(rig.engine.pipes._free) == rig.engine.pipes.open_pipes
        finally:
            rig.close()
        assert rig.bugs == []

    before = open_sockets()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(check())
    assert open_sockets() == before
