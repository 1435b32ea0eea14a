"""Implements the command ``run``, which runs an :class:`Agent` until a signal or a failure.

    settings ─▶ options, source, steering ─▶ Agent ─▶ SIGTERM, SIGINT ─▶ drain ─▶ exit 0
                                               └────▶ the source can't continue ─▶ exit 1

The table of settings maps each setting to its option.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from ..config import InheritedSocket, ListenAddress, Settings
from ..dataplane import Tuning
from ..errors import ConfigError, LockHeld, UserspaceProxyError
from ..kernel.offers import KernelOffers
from ..kernel.own_namespace import is_own_namespace
from ..linux import raise_descriptor_limit
from ..log_fields import FieldLogger
from ..logged_condition import LoggedCondition
from ..lookup.dns_server import check_address
from ..loops import loop_factory
from ..plane import default_workers
from ..sources import Source
from ..state_file import state_dir_of
from ..status.listening import ListenAt
from ..steering import proxy_label
from ..steering.selection import read_offers_for
from ..version import __version__, own_commit
from .after_hand_over import (
    leave,
    reap_children,
    start_while_workers_live,
    takes_back,
    wait_for_workers,
    was_restarted,
)
from .agent import Agent
from .hand_over import CRASH_DRAIN_S, TakenOver, ask_to_hand_over
from .lock import NodeLock, running_proxies
from .node_setup import steering_checks
from .rounds.options import Options, WriteText
from .rounds.tasks import Supervisor, first_of, pause
from .signals import stop_on_signal

_log = FieldLogger("userspace_proxy.agent")

# The time limit of all requests together, and the pause before they are sent again. A healthy API
# server answers within about 10 ms.
_ANSWER_S, _ASK_AGAIN_S = 5.0, 2.0


def run_agent(
    settings: Settings,
    warnings: Sequence[str],
    check: Callable[[Settings, str], None],
    dropped_log_lines: Callable[[], int] = int,
    write_stdout: WriteText | None = None,
) -> int:
    """Run until a signal; return the exit status, which is 1 if kernel state was left behind.

    The caller disables the garbage collector first; it is enabled once the agent has started.

    Args:
        warnings: Warnings from reading the settings; logged once.
        check: Called in a thread after the start, with the steering mode; logs findings on this
            node that affect steering. UserspaceProxyError, OSError and ValueError are logged.
        dropped_log_lines: Returns the number of dropped log lines.
        write_stdout: Prints addresses, if the settings request it.

    Raises:
        UserspaceProxyError: The agent can't start or continue; the message contains the cause.
    """
    runs = {"version": __version__, "commit": own_commit(), "settings": settings.as_given()}
    _log.info("starting", extra=runs)
    for warning in warnings:
        _log.warning("settings: %(cause)s", extra={"cause": warning})
    raise_descriptor_limit()
    factory = loop_factory()
    if factory is asyncio.new_event_loop:
        _log.info("uvloop is not installed, using asyncio's event loop")
    with asyncio.Runner(loop_factory=factory) as runner:
        options = replace(
            make_options(settings),
            dropped_log_lines=dropped_log_lines,
            write_addresses=write_stdout if settings.print_addresses == "json" else None,
        )
        return runner.run(_run(settings, options, check))


async def _run(settings: Settings, options: Options, check: Callable[[Settings, str], None]) -> int:
    source = make_source(settings)
    is_back = takes_back()
    if is_back:
        _log.error("taking the node back: the next process exited before it served clients")
        reap_children(asyncio.get_running_loop())
    lock = NodeLock(options.proxy_name)
    kernel = read_offers_for(settings.steering)
    taken = None if is_back else await _make_way(settings, options, source, kernel, lock)

    def end(status: int) -> None:
        agent.abandon()
        os._exit(status)

    arrived: list[int] = []
    stop = stop_on_signal(asyncio.get_running_loop(), arrived, leave=leave, end=end)
    hand_over = partial(wait_for_workers, lock=lock, arrived=arrived)
    options = replace(_succeeding(options, taken, settings.drain_s), hand_over=hand_over)
    agent = Agent(settings.steering, source, options, kernel)

    async def start() -> None:
        nonlocal agent
        try:
            await agent.start()
        except LockHeld:
            # An agent starts only once, so each attempt creates a new one.
            agent = Agent(settings.steering, source, options, kernel)
            raise

    try:
        if not is_back:
            await start()
        elif not await start_while_workers_live(start, stop):
            wait_for_workers(None, lock)
        settle_memory()
    finally:
        gc.enable()
    steering = agent.status().steering.name
    background = Supervisor()
    background.start("memory", lambda: _settle(agent), restarts=False)
    background.start("check", lambda: _check(check, settings, steering), restarts=False)
    try:
        outcome = await first_of(agent.failed(), stop.wait())
        if isinstance(outcome, UserspaceProxyError):
            raise outcome
        _log.info("stopping", extra={"drain_s": settings.drain_s})
    finally:
        await background.stop()
        if await agent.is_awaited():
            text = "handing the node back to the previous process while workers continue to serve"
            _log.info(text)
        else:
            await agent.stop(drain_s=settings.drain_s if stop.is_set() else 0.0)
        _log.info("stopped")
    return 1 if agent.left_behind else 0


async def _make_way(
    settings: Settings, options: Options, source: Source, kernel: KernelOffers, lock: NodeLock
) -> TakenOver | None:
    """Run the startup checks, and ask the running proxy to hand over; None without a take-over."""
    if not settings.take_over or settings.steering == "none":
        return None
    if was_restarted() and (pid := await _holder(settings)) is not None:
        text = "another process has taken over the node, waiting to be stopped"
        _log.warning(text, extra={"pid": pid})
        wait_for_workers(None, lock)
    # Check as much as possible before asking the running proxy to hand over the node, so that it
    # keeps serving if a check fails.
    for check in start_checks(settings, options, source, kernel, relieves=True).values():
        check()
    if not settings.manifests:
        await _await_api_server(settings)
    taken = await ask_to_hand_over(settings.service_proxy_name or None)
    if taken is not None:
        fields = {"pid": taken.pid} if taken.pid else {}
        _log.info("the running proxy has handed over the node", extra=fields)
    return taken


async def _await_api_server(settings: Settings) -> None:
    """Wait until this process can read Services, or no proxy of the same name is running."""
    from ..sources.kubernetes.permissions import ask_server

    waiting = LoggedCondition[str](
        _log,
        "the running proxy keeps the node until this process can read Services: %(cause)s",
        "this process can read Services now",
    )
    while await _holder(settings) is not None:
        said = await ask_server(
            kubeconfig=settings.kubeconfig,
            master=settings.master,
            node_name="",
            within_s=_ANSWER_S,
            endpoints_from_pods=settings.endpoints_from_pods,
        )
        waiting.set(*said.problems)
        if not said.problems:
            return
        await pause(_ASK_AGAIN_S)


async def _holder(settings: Settings) -> int | None:
    """Return the PID of the running proxy of this name, 0 if unknown; None if none is running."""
    return (await asyncio.to_thread(running_proxies)).get(proxy_label(settings.service_proxy_name))


def start_checks(
    settings: Settings, options: Options, source: Source, kernel: KernelOffers, *, relieves: bool
) -> dict[str, Callable[[], None]]:
    """Return the startup checks, by topic; each raises UserspaceProxyError on failure."""
    dns = settings.dns_bind_address
    return {
        "manifests" if settings.manifests else "API server": source.check,
        **steering_checks(settings.steering, options, kernel),
        **({"dns": partial(check_address, dns, may_be_in_use=relieves)} if dns else {}),
    }


def _succeeding(options: Options, taken: TakenOver | None, drain_s: float) -> Options:
    """Return the options for a node that was taken over, or whose previous process has exited."""
    if taken is None:
        return replace(options, previous_drain_s=CRASH_DRAIN_S)
    return replace(
        options,
        previous_drain_s=drain_s,
        report_serving=taken.report_serving,
        is_awaited=taken.is_awaited,
    )


def settle_memory() -> None:
    """Collect garbage, exempt surviving objects from later collections, and trim the heap.

    Call this after creating many objects. The call takes 0.1 s for 10,000 Services. Otherwise each
    full collection would take as long, whenever the number of objects has grown by a quarter.
    """
    gc.collect()
    gc.freeze()
    # Only glibc has this function; other C libraries return memory without it.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


async def _settle(agent: Agent) -> None:
    """Settle the memory again once the first Services are served."""
    with contextlib.suppress(UserspaceProxyError, RuntimeError):
        await agent.settled()
        settle_memory()


async def _check(check: Callable[[Settings, str], None], settings: Settings, steering: str) -> None:
    try:
        await asyncio.to_thread(check, settings, steering)
    except (UserspaceProxyError, OSError, ValueError) as exc:
        _log.warning("cannot check this node for problems: %(cause)s", extra={"cause": str(exc)})


def make_source(settings: Settings) -> Source:
    """Return the source for the settings: manifests or an API server."""
    if settings.manifests:
        from ..sources import ManifestSource

        return ManifestSource(
            settings.manifests,
            node_name=settings.node_name,
            service_cidrs=settings.service_cluster_ip_range,
        )
    from ..sources.kubernetes import KubernetesSource

    return KubernetesSource(
        kubeconfig=settings.kubeconfig,
        master=settings.master,
        node_name=settings.node_name,
        with_headless=settings.dns_bind_address is not None,
        endpoints_from_pods=settings.endpoints_from_pods,
    )


def make_options(settings: Settings) -> Options:
    """Return the options for the settings; they own the sockets of inherited descriptors.

    Raises:
        ConfigError: A setting names a descriptor that isn't an inherited socket.
    """
    return replace(
        settings.as_options(Options),
        tuning=settings.as_options(Tuning),
        # The following values depend on this host or process, or on two settings.
        node_name=settings.node_name,
        service_cidrs=settings.service_cluster_ip_range if settings.manifests else (),
        is_own_namespace=is_own_namespace(),
        # Authors of manifests are trusted to send clients to any address that this node reaches.
        allow_node_endpoints=settings.allow_node_endpoints or bool(settings.manifests),
        workers=settings.workers or default_workers(),
        health=_bind(settings.healthz_bind_address, "--healthz-bind-address"),
        admin=_bind(settings.metrics_bind_address, "--metrics-bind-address"),
        state_dir=state_dir_of(settings.state_dir),
        config=settings.as_rows(),
        given=settings.as_given(),
        commit=own_commit(),
    )


def _bind(address: ListenAddress | None, flag: str) -> ListenAt | None:
    if isinstance(address, InheritedSocket):
        try:
            return socket.socket(fileno=address.fd)
        except OSError as exc:
            raise ConfigError(
                f"{flag}: descriptor {address.fd} is not an inherited socket: {exc.strerror}"
            ) from exc
    return address
