"""Pipes are few, kept, and never handed on with bytes in them."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from userspace_proxy.dataplane.descriptors import Descriptors
from userspace_proxy.dataplane.pipes import PIPE_BYTES, RETRY_S, PipePool

NOW = 1000.0


@pytest.fixture
async def descriptors():
    descriptors = Descriptors(asyncio.get_running_loop(), limit=100)
    yield descriptors
    assert descriptors.in_use == 0
    descriptors.close()


@pytest.fixture
def make(descriptors):
    pools = []

    def make(max_pipes):
        pools.append(PipePool(descriptors, max_pipes))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


async def test_a_pipe_holds_a_mebibyte(make):
    pool = make(1)
    pipe = pool.take(NOW)
    assert fcntl.fcntl(pipe.read_end, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    pool.give(pipe, 0)


async def test_a_pipe_that_was_given_back_empty_is_used_again(make):
    pool = make(2)
    pipe = pool.take(NOW)
    pool.give(pipe, 0)
    assert pool.take(NOW) is pipe
    assert pool.open_pipes == 1
    pool.give(pipe, 0)


async def test_a_pipe_with_bytes_in_it_is_closed(make, descriptors):
    pool = make(2)
    pipe = pool.take(NOW)
    os.write(pipe.write_end, b"somebody's")
    pool.give(pipe, 10)
    assert (pool.open_pipes, descriptors.in_use) == (0, 0)
    assert not Path(f"/proc/self/fd/{pipe.read_end}").exists()


async def test_there_are_no_more_than_the_bound(make):
    pool = make(2)
    pipes = [pool.take(NOW), pool.take(NOW)]
    assert pool.take(NOW) is None
    for pipe in pipes:
        pool.give(pipe, 0)


async def test_none_is_opened_without_descriptors_to_spare(make, descriptors):
    pool = make(2)
    descriptors.take(99)
    assert pool.take(NOW) is None
    descriptors.give(99)


async def test_a_closed_pool_has_none(make, descriptors):
    pool = make(2)
    used, free = pool.take(NOW), pool.take(NOW)
    pool.give(free, 0)
    pool.close()
    assert pool.open_pipes == 1
    pool.give(used, 0)
    pool.close()
    assert pool.take(NOW) is None
    assert descriptors.in_use == 0


async def test_where_the_kernel_gives_no_large_pipe_it_is_asked_again_later(
    make, descriptors, monkeypatch
):
    asked = []

    def refuse(*args):
        asked.append(args)
        raise PermissionError(1, "Operation not permitted")

    pool = make(3)
    kept = pool.take(NOW)
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "fcntl", refuse)
        assert pool.take(NOW) is None
        assert pool.take(NOW + RETRY_S - 0.1) is None
        assert len(asked) == 1
        assert (pool.open_pipes, descriptors.in_use) == (1, 2)
        assert pool.take(NOW + RETRY_S) is None
        assert len(asked) == 2
    pool.give(kept, 0)
    assert pool.take(NOW + RETRY_S) is kept
    another = pool.take(NOW + 2 * RETRY_S)
    assert another is not None
    pool.give(kept, 0)
    pool.give(another, 0)
