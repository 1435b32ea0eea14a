"""Prepares a node for steering that changes its kernel: lock, refuse port, connection tracking.

Each step registers the function that undoes it with the given exit stack. This module also checks
and removes the connect() hooks.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial

from ..errors import SteeringError, UserspaceProxyError
from ..kernel.nf_tables.owned import OwnerSockets
from ..kernel.offers import KernelOffers
from ..kernel.tracking import TrackingTimeouts
from ..log_fields import FieldLogger
from ..model import DataPath
from ..plane import Plane, PortPool
from ..plane.worker_sockets import worker_labels
from ..state_file import file_of_proxy
from ..steering import (
    Bind,
    ConntrackHold,
    Steering,
    SteeringFacts,
    proxy_label,
    remove_leftovers,
)
from ..steering.selection import check_kernel, check_steering
from ..steering.socket_lb import (
    HookedSteering,
    HookOptions,
    check_hooks,
    hooked_labels,
    make_hooked_steering,
    remove_abandoned_hooks,
    remove_hooks,
)
from .core import Core
from .hand_over import answer_requests, end_workers
from .lock import NodeLock, running_proxies
from .rounds.component import Component
from .rounds.node_ports import RefusePort
from .rounds.options import Options
from .watchers.client_address import ClientAddresses
from .watchers.kernel_answers import KernelAnswers
from .watchers.kernel_counts import KernelCounts
from .watchers.socket_lb.hooked_connections import HookedConnections

_log = FieldLogger("userspace_proxy.agent")

# The number of attempts to clean up. Each waits a few seconds for another program's lock; a pod is
# killed after 30 s.
_CLEAN_UP_TRIES = 3
_CLEAN_UP = "run userspace-proxy cleanup"


def keep_owners(owners: OwnerSockets, plane: Plane) -> None:
    """Store in the workers the sockets that own nftables tables, for the next control process."""
    # Switch to the loop's thread: the callback is called in the thread that writes tables.
    in_loop = asyncio.get_running_loop().call_soon_threadsafe
    owners.follow(lambda name, sock: in_loop(plane.keep, name, sock))


def open_steering(
    wanted: str | Steering,
    options: Options,
    pool: PortPool,
    stack: AsyncExitStack,
    kernel: KernelOffers,
) -> Steering:
    """Create the steering mechanism; take the lock and a refuse port if it changes the kernel.

    A mechanism without connect() hooks removes the hooks of an earlier run, if possible.

    Args:
        wanted: A steering mode, or a mechanism created by the caller, which is returned unchanged.

    Raises:
        LockHeld: Another proxy steers this node.
        SteeringError: The steering mode doesn't exist, or can't work here.
        ListenError: No port of this node is free.
    """
    if isinstance(wanted, Steering):
        return wanted
    facts = SteeringFacts(
        proxy_name=options.proxy_name or "",
        service_cidrs=options.service_cidrs,
        proxy_ports=options.proxy_ports,
        node_addresses=options.node_addresses,
    )
    hooks, own_namespace = hook_options(options), options.is_own_namespace
    # Fail now, because missing kernel features won't appear later.
    check_kernel(wanted, kernel, own_namespace=own_namespace)
    check_hooks(wanted, hooks, kernel, own_namespace=own_namespace)
    if wanted != "none":
        _take_lock(options, stack)
        refuse_port = RefusePort()
        stack.callback(refuse_port.close)
        pool.take(refuse_port.open(pool.first, pool.last))
        facts = replace(facts, refuse_port=refuse_port.number)
    steering = make_hooked_steering(
        wanted, facts, hooks, own_namespace=own_namespace, kernel=kernel
    )
    if wanted != "none" and not isinstance(steering, HookedSteering):
        _remove_hooks(facts.proxy_name)
    return steering


def steering_checks(
    name: str, options: Options, kernel: KernelOffers
) -> dict[str, Callable[[], None]]:
    """Return a steering mode's startup checks, by topic; each raises SteeringError on failure."""
    own, hooks = options.is_own_namespace, hook_options(options)
    return {
        "steering": partial(check_steering, name, kernel, own_namespace=own),
        "socket LB": partial(check_hooks, name, hooks, kernel, own_namespace=own),
    }


def hook_options(options: Options) -> HookOptions | None:
    """Return the options for translating connect() calls; None if they aren't translated."""
    if options.socket_lb == "off":
        return None
    is_required, host_only = options.socket_lb == "required", options.socket_lb_host_only
    return HookOptions(is_required, options.socket_lb_cgroup, host_only)


def _remove_hooks(proxy_name: str) -> None:
    """Try to remove the hooks of an earlier run, which would send clients to outdated endpoints."""
    try:
        if remove_hooks(proxy_name):
            _log.info("removed leftover connect() hooks")
    except SteeringError as exc:
        _log.warning(
            "cannot remove leftover connect() hooks, so clients may be sent to outdated endpoints: "
            "%(cause)s",
            extra={"cause": str(exc)},
        )


def watch_kernel_path(core: Core, answers: KernelAnswers) -> Iterator[Component]:
    """Yield the components that count connections that bypass the workers."""
    steering, served_ports = core.steering, core.served_ports
    yield KernelCounts(steering, served_ports)
    if isinstance(steering, HookedSteering) and (hooks := steering.hooks) is not None:
        tuning = core.options.tuning
        yield HookedConnections(hooks, core.plane, served_ports, core.observing, tuning, answers)


def program_labels() -> set[str]:
    """Return the labels of proxies that have workers or BPF programs here."""
    return {*worker_labels(), *hooked_labels()}


async def end_programs(
    labels: Collection[str], *, with_abandoned: bool
) -> AsyncIterator[Mapping[str, str]]:
    """Remove the workers and BPF programs that proxies left behind; yield log fields for each.

    Args:
        labels: The proxies' labels.
        with_abandoned: Whether to also remove the BPF programs of dead proxies in other network
            namespaces.

    Raises:
        SteeringError: During the iteration: BPF programs can't be removed.
    """
    for label in sorted(labels):
        if await end_workers(label):
            yield {"part": "workers", "proxy_name": label}
    for label in sorted(labels):
        if remove_hooks(label):
            yield {"part": "connect() hooks", "proxy_name": label}
    for folder in remove_abandoned_hooks() if with_abandoned else ():
        yield {"part": "connect() hooks of another network namespace", "folder": folder}


async def prepare_node(
    steering: Steering,
    options: Options,
    stack: AsyncExitStack,
    owners: OwnerSockets,
    kernel: KernelOffers,
) -> None:
    """Remove leftovers of other steering modes; with proxy ports, keep open connections tracked.

    Call this before the first listener opens, because stale rules steer to proxy ports.
    """
    await _remove_leftovers(steering.name, options)
    if steering.bind is Bind.PROXY_PORT:
        await _hold_conntrack(options, stack, owners, kernel)
        _extend_timeouts(options, stack)


async def start_client_addresses(
    options: Options,
    stack: AsyncExitStack,
    owners: OwnerSockets,
    plane: Plane,
    kernel: KernelOffers,
) -> ClientAddresses | None:
    """Start to preserve client addresses; if this isn't requested, clean up and return None.

    With the kernel path for all Services, preservation begins with the first Service that can't
    take that path. The caller removes the kernel state by ``clean_up``, after the drain.
    """
    client_addresses = ClientAddresses(
        options.proxy_name or "", options.cluster_networks, owners, kernel
    )
    stack.push_async_callback(client_addresses.close)
    if not options.preserves_client_address:
        await client_addresses.leave_nothing()
        return None
    if options.path is not DataPath.KERNEL:
        await client_addresses.begin()
    client_addresses.follow(plane)
    return client_addresses


async def steer_nothing(steering: Steering) -> None:
    """Stop steering clients to this proxy; a failure is logged."""
    try:
        await steering.apply({})
    except UserspaceProxyError as exc:
        _log.error(
            "cannot stop steering, so clients are still sent to this proxy: %(cause)s",
            extra={"cause": str(exc)},
        )


async def remove_steering(steering: Steering) -> bool:
    """Remove a steering mode's kernel state, in several attempts; return whether one succeeded."""
    for _ in range(_CLEAN_UP_TRIES):
        try:
            await steering.clean_up()
        except UserspaceProxyError as exc:
            _log.warning(
                "failed to remove the steering rules: %(cause)s", extra={"cause": str(exc)}
            )
        else:
            return True
    _log.error("steering rules remain in the kernel", extra={"remedy": _CLEAN_UP})
    return False


async def remove_client_addresses(client_addresses: ClientAddresses) -> bool:
    """Remove the routing for client addresses; return whether that succeeded."""
    try:
        await client_addresses.clean_up()
    except UserspaceProxyError as exc:
        _log.error(
            "cannot remove client address routing: %(cause)s",
            extra={"cause": str(exc), "remedy": _CLEAN_UP},
        )
        return False
    return True


def _take_lock(options: Options, stack: AsyncExitStack) -> None:
    lock = NodeLock(options.proxy_name)
    lock.take()
    stack.callback(lock.release)
    stack.callback(answer_requests(asyncio.get_running_loop(), lock, options.hand_over).close)


async def _remove_leftovers(steering: str, options: Options) -> None:
    found = await remove_leftovers(steering, options.proxy_name or "")
    for cause in found.unseen:
        _log.warning(
            "cannot check for rules left by other steering modes, so they may remain: %(cause)s",
            extra={"cause": cause},
        )
    for name in found.removed:
        _log.info("removed rules left by steering mode %(steering)s", extra={"steering": name})


async def _hold_conntrack(
    options: Options, stack: AsyncExitStack, owners: OwnerSockets, kernel: KernelOffers
) -> None:
    """Keep connection tracking enabled even if another program flushes the node's rules."""
    hold = ConntrackHold(options.proxy_name or "", owners, kernel)
    stack.push_async_callback(hold.let_go)
    if cause := await hold.hold():
        _log.info(
            "cannot keep connection tracking enabled, so open connections break if another program "
            "flushes the node's rules: %(cause)s",
            extra={"cause": cause},
        )


def tracking_timeouts(
    half_closed_s: float, state_dir: str, labels: Collection[str]
) -> TrackingTimeouts:
    """Return conntrack's timeouts; they aren't restored while proxies with other labels run."""
    file = file_of_proxy(state_dir, "conntrack-close-wait", "")
    return TrackingTimeouts(
        half_closed_s, file, is_last=lambda: running_proxies().keys() <= set(labels)
    )


def _extend_timeouts(options: Options, stack: AsyncExitStack) -> None:
    """Extend conntrack's timeout to the time for which half-closed connections may stay open."""
    timeouts = tracking_timeouts(
        options.tuning.tcp_half_closed_s, options.state_dir, {proxy_label(options.proxy_name or "")}
    )
    stack.callback(timeouts.put_back)
    if cause := timeouts.hold():
        _log.info(
            "cannot raise nf_conntrack_tcp_timeout_close_wait, so half-closed connections depend "
            "on TCP keep-alive: %(cause)s",
            extra={"cause": cause},
        )
