"""Pipes are few, kept, and never handed on with bytes in them."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

import pytest

from userspace_proxy.dataplane.descriptors import Descriptors
from userspace_proxy.dataplane.pipes import PIPE_BYTES, PipePool


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
    pipe = pool.take()
    assert fcntl.fcntl(pipe.read_end, fcntl.F_GETPIPE_SZ) == PIPE_BYTES
    pool.give(pipe, 0)


async def test_a_pipe_that_was_given_back_empty_is_used_again(make):
    pool = make(2)
    pipe = pool.take()
    pool.give(pipe, 0)
    assert pool.take() is pipe
    assert pool.open_pipes == 1
    pool.give(pipe, 0)


async def test_a_pipe_with_bytes_in_it_is_closed(make, descriptors):
    pool = make(2)
    pipe = pool.take()
    os.write(pipe.write_end, b"somebody's")
    pool.give(pipe, 10)
    assert (pool.open_pipes, descriptors.in_use) == (0, 0)
    assert not Path(f"/proc/self/fd/{pipe.read_end}").exists()


async def test_there_are_no_more_than_the_bound(make):
    pool = make(2)
    pipes = [pool.take(), pool.take()]
    assert pool.take() is None
    for pipe in pipes:
        pool.give(pipe, 0)


async def test_none_is_opened_without_descriptors_to_spare(make, descriptors):
    pool = make(2)
    descriptors.take(99)
    assert pool.take() is None
    descriptors.give(99)


async def test_a_closed_pool_has_none(make, descriptors):
    pool = make(2)
    used, free = pool.take(), pool.take()
    pool.give(free, 0)
    pool.close()
    assert pool.open_pipes == 1
    pool.give(used, 0)
    pool.close()
    assert pool.take() is None
    assert descriptors.in_use == 0


async def test_where_the_kernel_gives_no_large_pipe_there_is_none(make, descriptors, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "Operation not permitted")

    pool = make(2)
    kept = pool.take()
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    assert pool.take() is None
    assert (pool.open_pipes, descriptors.in_use) == (1, 2)
    pool.give(kept, 0)
    assert pool.take() is kept
    pool.give(kept, 0)
