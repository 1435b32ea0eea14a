"""The node state that a steering mode needs; tests/node prepares a real kernel."""

import contextlib
import errno
import logging
import os
from dataclasses import replace

import pytest

from userspace_proxy.agent.lock import NodeLock
from userspace_proxy.agent.node_setup import open_steering, prepare_node
from userspace_proxy.agent.rounds.options import Options
from userspace_proxy.errors import LockHeld, SteeringError
from userspace_proxy.kernel.nf_tables import writer
from userspace_proxy.kernel.nf_tables.owned import OwnerSockets
from userspace_proxy.kernel.offers import LACKS_NOTHING, KernelOffers
from userspace_proxy.plane import PortPool
from userspace_proxy_testing.fakes.steering import FakeSteering

NAME = f"test-node-{os.getpid()}"
OPTIONS = Options(proxy_name=NAME, proxy_ports=(26000, 26009))


async def test_a_kernel_steering_mode_takes_the_lock_and_a_refuse_port():
    pool = PortPool(*OPTIONS.proxy_ports)
    async with contextlib.AsyncExitStack() as stack:
        steering = open_steering("nftables", OPTIONS, pool, stack, LACKS_NOTHING)
        stack.push_async_callback(steering.close)
        assert len(list(pool.candidates())) == 9
        with pytest.raises(LockHeld):
            NodeLock(NAME).take()
    lock = NodeLock(NAME)
    lock.take()
    lock.release()


async def test_mode_none_takes_neither_lock_nor_refuse_port():
    pool = PortPool(*OPTIONS.proxy_ports)
    async with contextlib.AsyncExitStack() as stack:
        open_steering("none", OPTIONS, pool, stack, LACKS_NOTHING)
        assert len(list(pool.candidates())) == 10
        lock = NodeLock(NAME)
        lock.take()
        lock.release()


@pytest.mark.parametrize(
    ("lacking", "why"),
    [
        ("inet tables", r"cannot steer by nftables: this kernel lacks "),
        ("connect hooks", r"cannot translate connect\(\): this kernel lacks "),
    ],
)
async def test_an_unsupported_steering_mode_takes_no_refuse_port(lacking, why):
    kernel = KernelOffers({lacking: errno.EOPNOTSUPP})
    pool = PortPool(*OPTIONS.proxy_ports)
    options = replace(OPTIONS, socket_lb="required")
    async with contextlib.AsyncExitStack() as stack:
        with pytest.raises(SteeringError, match=why):
            open_steering("nftables", options, pool, stack, kernel)
        assert len(list(pool.candidates())) == 10


async def test_missing_table_owner_support_is_logged_with_its_consequences(
    node, monkeypatch, caplog, tmp_path
):
    monkeypatch.setattr(writer, "TABLE_OWNED", 1 << 31)
    caplog.set_level(logging.INFO)
    kernel = KernelOffers({"table owner": errno.EINVAL})
    options = replace(OPTIONS, state_dir=str(tmp_path))
    async with contextlib.AsyncExitStack() as stack:
        await prepare_node(FakeSteering(), options, stack, OwnerSockets(), kernel)
    assert (
        "cannot keep connection tracking enabled, so open connections break if another program "
        "flushes the node's rules: this kernel lacks table owner (Linux 5.12)"
    ) in caplog.messages
