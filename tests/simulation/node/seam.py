"""The seam: names in modules of the agent that a simulated node replaces."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import pkgutil
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FunctionType, ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import userspace_proxy
from userspace_proxy import state_file
from userspace_proxy.agent import agent, hand_over, node_setup
from userspace_proxy.agent.components import components_of
from userspace_proxy.agent.rounds import change_turns, node_ports
from userspace_proxy.agent.watchers import health_check_ports, kernel_answers, last_state, node_now
from userspace_proxy.agent.watchers.compared import Compared
from userspace_proxy.agent.watchers.firewalls import FirewallWatch
from userspace_proxy.agent.watchers.tracking import TrackingWatch
from userspace_proxy.clocks import Clocks
from userspace_proxy.kernel import listening_sockets, one_thread
from userspace_proxy.kernel.node_listings import NodeListings
from userspace_proxy.plane import listener, recovered_sockets
from userspace_proxy.status import health_checks

from ..machine import nf_tables_seam
from ..machine import seam as machine_seam
from .lacks import FILTER
from .machine import OneThread
from .plan import NODE_IP

if TYPE_CHECKING:
    from .machine import AgentProcess
    from .world import World

_LEFT_OUT = (Compared, FirewallWatch, TrackingWatch)
"""Components that would read the real node."""

Patch = tuple[Any, str, Any]
# The delay after a change until the kernel's list of addresses is read.
_LISTED_S = 0.005
# The agent's delays after a failed write: with 2 s, several writes can fail in a row; with 30 s, as
# in production, an exiting agent must write.
_RETRY_S = 2.0, 30.0


def _nothing() -> None:
    """Do nothing."""


class _Addresses:
    """Simulates NodeAddresses: follows the node's addresses with a short delay."""

    def __init__(self, world: World, loop: Any, changed: Callable[[], None]) -> None:
        self._world = world
        self._changed = changed
        self._call_later = loop.call_later
        self.current = self._now()
        world.moved = self._move

    def _now(self) -> tuple[str, ...]:
        return tuple(sorted(self._world.cluster.addresses))

    def _move(self) -> None:
        self._call_later(_LISTED_S, self._take)

    def _take(self) -> None:
        if self.current != self._now():
            self.current = self._now()
            self._changed()

    def close(self) -> None:
        self._world.moved = _nothing


class HealthServers:
    """Binds the sockets of health check node ports, without HTTP servers."""

    def __init__(self, world: World) -> None:
        self._world = world

    def listen(self, family: int, at: Any, *, is_v6_only: bool) -> Any:
        del is_v6_only
        sock = self._world.machine.kernel.socket(family, socket.SOCK_STREAM)
        try:
            sock.bind((at.ip, at.port))
            sock.listen(128)
        except OSError:
            sock.close()
            raise
        return sock

    def names(self) -> dict[str, Any]:
        """Return the names in the module that opens these sockets, with their replacements."""

        async def nothing() -> None:
            pass

        runner = SimpleNamespace(setup=nothing, cleanup=nothing, server=object())
        return {
            "listen": self.listen,
            "Accepting": lambda _server, sock, _reserve: sock,
            "Reserve": lambda: SimpleNamespace(close=lambda: None),
            "make_runner": lambda _middleware, _routes: runner,
            "LimitedServer": lambda *_arguments: None,
        }


def answer_of(checks: Any, port: int) -> int:
    """Return the status code of a health check node port; 0 if nothing answers."""
    ports = checks._ports
    if ports is None or not any(at.port == port for at in ports._listeners):
        return 0
    request = SimpleNamespace(get_extra_info=lambda _name: (NODE_IP, port))
    answering = ports._answer(request)
    try:
        answering.send(None)
    except StopIteration as done:
        return int(done.value.status)
    except Exception as exc:  # noqa: BLE001 - aiohttp's responses are exceptions, too
        return int(getattr(exc, "status", 500))
    raise AssertionError("an answer awaits nothing")


@functools.cache
def _modules() -> list[ModuleType]:
    """Return the product's modules that a simulated node uses."""
    left_out = ("cli", "nodes", "check", "explain", "forward", "embedding")
    found = []
    for info in pkgutil.walk_packages(userspace_proxy.__path__, "userspace_proxy."):
        parts = info.name.split(".")
        if parts[1] not in left_out and parts[-1] != "__main__":
            with contextlib.suppress(ImportError):
                found.append(importlib.import_module(info.name))
    return found


@functools.cache
def _functions_with_clocks() -> list[FunctionType]:
    """Return the functions with a clock as the default value of an argument."""
    clocks = (time.monotonic, time.time)
    found: dict[int, FunctionType] = {}
    for module in _modules():
        for _, item in inspect.getmembers(module):
            members = [item]
            if inspect.isclass(item) and item.__module__.startswith("userspace_proxy"):
                members = [vars(item)[name] for name in vars(item)]
            for member in members:
                function = getattr(member, "__func__", member)
                if not isinstance(function, FunctionType):
                    continue
                values = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
                if any(value in clocks for value in values if callable(value)):
                    found[id(function)] = function
    return list(found.values())


@contextlib.contextmanager
def clocks(monotonic: Callable[[], float], unix: Callable[[], float]) -> Iterator[None]:
    """Make all modules read the clocks of a simulated node."""
    new = {time.monotonic: monotonic, time.time: unix}
    before = []
    for function in _functions_with_clocks():
        before.append((function, function.__defaults__, function.__kwdefaults__))
        if function.__defaults__:
            function.__defaults__ = tuple(_replaced(value, new) for value in function.__defaults__)
        if function.__kwdefaults__:
            function.__kwdefaults__ = {
                name: _replaced(value, new) for name, value in function.__kwdefaults__.items()
            }
    real = vars(Clocks)["monotonic"], vars(Clocks)["time"]
    Clocks.monotonic, Clocks.time = staticmethod(monotonic), staticmethod(unix)
    try:
        yield
    finally:
        Clocks.monotonic, Clocks.time = real
        for function, defaults, keywords in before:
            function.__defaults__, function.__kwdefaults__ = defaults, keywords


def _replaced(value: Any, new: dict[Any, Any]) -> Any:
    return new[value] if value in (time.monotonic, time.time) else value


def _admit(world: World) -> Callable[[Any, Any], None]:
    def admit(sock: Any, networks: Any) -> None:
        world.machine.kernel.lack(FILTER)
        world.machine.admitted[sock.core.shared] = networks

    return admit


def _patches(world: World) -> Iterator[Patch]:
    kernel = machine_seam._CurrentKernel(world.machine)

    async def nothing(*_arguments: object) -> None:
        """Do nothing: replaces functions that change more of the node than its tables."""

    def some_components(core: Any, shown: Any, own: Any) -> list[Any]:
        found = list(_COMPONENTS_OF(core, shown, own))
        return [one for one in found if not isinstance(one, _LEFT_OUT)]

    for module, name, value in nf_tables_seam.names(
        world.kernel.netlink, world.kernel.sysctls, world.kernel.process_number
    ):
        if name != "OneThread":
            yield module, name, value
    yield one_thread, "ThreadPoolExecutor", OneThread
    yield node_setup, "_take_lock", lambda *_arguments: None
    yield node_setup, "_remove_hooks", lambda _name: None
    yield agent, "prepare_node", nothing
    yield agent, "start_client_addresses", nothing
    yield agent, "components_of", some_components
    yield agent, "network_namespace", lambda: 1
    yield node_now, "NodeAddresses", partial(_Addresses, world)
    api = world.api
    names = api.address.names(lambda: api.client_for(cast("AgentProcess", world.machine.current)))
    for module, name, value in names:
        if name != "Clocks":
            yield module, name, value
    yield node_ports, "socket", SimpleNamespace(**{**vars(socket), "socket": kernel.socket})
    yield node_ports, "held_ports", world.lacks.held_ports
    yield node_ports, "owners_of", lambda _inodes: {}
    yield health_check_ports, "who_holds", lambda *_port: None
    # Look only at startup, because entries here get no replies.
    yield kernel_answers, "EVERY_S", 1e9
    yield last_state, "_RETRY_S", _RETRY_S[world.plan.seed % 2]
    for name, value in HealthServers(world).names().items():
        yield health_checks, name, value
    for name, value in world.disk.names().items():
        yield state_file, name, value
    for module in (listener, listening_sockets, recovered_sockets):
        if "admit" in vars(module):
            yield module, "admit", _admit(world)
    yield hand_over, "connect_to_workers", kernel.connect_to_workers


_COMPONENTS_OF = components_of
_MISSING = object()


@contextlib.contextmanager
def installed(world: World) -> Iterator[None]:
    """Connect the product to a simulated node within the block."""
    constants = {"_BATCH_BYTES": world.plan.speed.room}
    endpoint_s = world.plan.endpoint_s
    with (
        clocks(world.timeline.clock, world.unix),
        machine_seam.installed(world.machine, world.rng, descriptors=2000, constants=constants),
        contextlib.ExitStack() as stack,
    ):
        netlink = world.kernel.netlink
        # The clocks of listings are default values of arguments; the former values are restored.
        NodeListings.__init__.__defaults__ = (netlink.clock, netlink.cpu_clock)
        costs = [(change_turns, "_ENDPOINT_S", endpoint_s), (change_turns, "_PORT_S", endpoint_s)]
        for module, name, value in (*_patches(world), *(costs if endpoint_s else ())):
            stack.callback(_restore, module, name, vars(module).get(name, _MISSING))
            setattr(module, name, value)
        yield


def _restore(module: Any, name: str, value: Any) -> None:
    if value is _MISSING:
        delattr(module, name)
    else:
        setattr(module, name, value)
