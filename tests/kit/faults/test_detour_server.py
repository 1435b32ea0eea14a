"""The modes of a fault server."""

import asyncio
import errno
import socket

import pytest

from tests.unit.port_numbers import free_port
from userspace_proxy.model import SocketAddress
from userspace_proxy_testing.faults.detour_server import FaultServer, Mode
from userspace_proxy_testing.faults.fault_types import FirstResets

from .rig import PATIENCE_S, ask, connect, faulty


def connects(address, timeout_s=0.2):
    """Return the errno of a blocking connect; ETIMEDOUT if there is no answer."""
    with socket.socket() as client:
        client.settimeout(timeout_s)
        try:
            client.connect(address)
        except TimeoutError:
            return errno.ETIMEDOUT
        except OSError as exc:
            return exc.errno
        return 0


async def test_a_fault_server_refuses_and_later_serves_at_the_same_address():
    async with faulty() as faults:
        address = faults.address
        faults.set_mode(Mode.REFUSE)
        assert connects(address) == errno.ECONNREFUSED
        faults.set_mode(Mode.PASS)
        assert (await ask(faults), faults.address) == (b"hello", address)
        assert faults.mode is Mode.PASS


async def test_dials_to_a_silent_fault_server_time_out():
    async with faulty() as faults:
        faults.set_mode(Mode.SILENT)
        assert connects(faults.address) == errno.ETIMEDOUT
        faults.set_mode(Mode.PASS)
        assert await ask(faults) == b"hello"


async def test_half_open_connections_are_accepted_and_never_answered():
    async with faulty() as faults:
        faults.set_mode(Mode.HALF_OPEN)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await ask(faults)


async def test_first_resets_resets_only_the_first_clients():
    async with faulty() as faults:
        faults.first_resets = FirstResets(2)
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await ask(faults)
        assert await ask(faults) == b"hello"


async def test_first_resets_can_reset_a_client_before_its_first_byte():
    async with faulty() as faults:
        faults.first_resets = FirstResets(1, at_connect=True)
        reader, writer = await connect(faults)
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(PATIENCE_S):
                await reader.read()
        writer.close()
        assert await ask(faults) == b"hello"


async def test_open_connections_are_ended_by_a_close_and_not_by_a_mode_change():
    async with faulty() as faults:
        reader, writer = await connect(faults)
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        faults.set_mode(Mode.REFUSE)
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"
        faults.close()
        faults.close()
        with pytest.raises(ConnectionResetError):
            await reader.read(1)
        writer.close()


async def test_a_client_of_a_dead_endpoint_is_reset():
    faults = FaultServer(SocketAddress("127.0.0.1", free_port()))
    try:
        with pytest.raises(ConnectionResetError):
            await ask(faults)
    finally:
        faults.close()


async def test_a_connection_can_be_reset_before_its_task_begins():
    async with faulty() as faults:
        with socket.create_connection(faults.address, timeout=60) as client:
            faults._accept()
            faults.drop_connections()
            with pytest.raises(ConnectionResetError):
                client.recv(1)
