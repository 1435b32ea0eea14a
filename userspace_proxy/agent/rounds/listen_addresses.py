"""Chooses the addresses on which Service ports listen, and finds the listener of a frontend.

Bind.PROXY_PORT   one listener per Service port, on 0.0.0.0 or ::, in the proxy port range
Bind.FRONTEND     one listener per frontend, on its own address and port
Bind.LOOPBACK     one listener per frontend: on its own address if that is a loopback address, and
                  its own port if that is free, or its second port; else on a port of the proxy
                  port range. A port of a Service's port range uses only its own port
"""

from __future__ import annotations

import errno
import typing
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping

from ...errors import BoundError, ListenError, ShortageError
from ...kernel.interfaces import NO_IPV6, NO_IPV6_HINT
from ...model import Frontend, IPFamily, Protocol, SocketAddress, is_loopback
from ...plan import PortPlan
from ...plane import Answer, Listener, PortPool, Wanted
from ...steering import Bind

_WILDCARD = {IPFamily.IPV4: "0.0.0.0", IPFamily.IPV6: "::"}
_LOOPBACK = {IPFamily.IPV4: "127.0.0.1", IPFamily.IPV6: "::1"}

# The maximum number of ports in use that are skipped in a row, in about 10 ms. The count restarts
# each second, and when a listener takes a port.
_TRIES = 256

HELD_HINT = "stop that process, or give the Service another port"


class ListenAddresses:
    """Chooses the addresses of one proxy's listeners, and takes their ports from the pool.

    Args:
        transparent: Whether the steering requires transparent sockets.
        holder: Returns a program that uses one of the given ports; empty if there is none.
        second_port: See ``Options``.
    """

    def __init__(
        self,
        bind: Bind,
        pool: PortPool,
        *,
        transparent: bool,
        holder: Callable[[Protocol, IPFamily, Collection[int]], str],
        second_port: Callable[[Frontend], int] | None = None,
    ) -> None:
        self._bind = bind
        self._pool = pool
        self._transparent = transparent
        self._holder = holder
        self._second_port = second_port
        self._tries = _TRIES
        """The number of used ports that may still be skipped before :meth:`start_over` or
        the next opened port."""
        self._skipped = 0
        """The number of ports skipped since a listener was last opened or closed, or since no
        Service port lacked a listener."""

    def start_over(self, *, is_short: bool) -> None:
        """Reset the number of used ports that may be skipped; call this once a second.

        Args:
            is_short: Whether a Service port still lacks a listener.
        """
        self._tries = _TRIES
        if not is_short:
            self._skipped = 0

    def wanted(
        self, plan: PortPlan, preferred: Mapping[Frontend, int], *, may_open: bool = True
    ) -> dict[Hashable, Wanted]:
        """Return a Service port's wanted listeners, by frontend or by a key for its proxy port.

        Args:
            plan: The plan, with at least one frontend.
            preferred: Proxy ports to try first, by frontend.
            may_open: If False, open listeners are kept or taken over, but none is opened.
        """
        wanted = self._wanted(plan, preferred)
        return wanted if may_open else {k: w._replace(addresses=()) for k, w in wanted.items()}

    def _wanted(self, plan: PortPlan, preferred: Mapping[Frontend, int]) -> dict[Hashable, Wanted]:
        if self._bind is Bind.FRONTEND:
            return {
                f: Wanted(plan.protocol, (f.address,), freebind=True, transparent=self._transparent)
                for f in plan.frontends
            }
        if self._bind is Bind.LOOPBACK:
            return {f: Wanted(plan.protocol, self._on_loopback(plan, f)) for f in plan.frontends}
        # A preferred port of 0 means that the recovered port must not be used.
        port = next((at for f in plan.frontends if (at := preferred.get(f))), None)
        addresses = self._in_range(_WILDCARD[plan.frontends[0].family], port)
        return {_proxy_port(plan): Wanted(plan.protocol, addresses, transparent=self._transparent)}

    def by_frontend(self, plan: PortPlan, answer: Answer) -> dict[Frontend, Listener]:
        """Return the open listener of each frontend; with proxy ports, all frontends share one."""
        if self._bind is not Bind.PROXY_PORT:
            return {f: answer.listeners[f] for f in plan.frontends if f in answer.listeners}
        shared = answer.listeners.get(_proxy_port(plan))
        return {} if shared is None else dict.fromkeys(plan.frontends, shared)

    def take(self, listeners: Iterable[Listener]) -> None:
        """Take the proxy ports of opened listeners from the pool."""
        for listener in listeners:
            if self._bind is not Bind.FRONTEND and listener.address.port in self._pool:
                self._pool.take(listener.address.port)
                self._tries, self._skipped = _TRIES, 0

    def give(self, listeners: Iterable[Listener]) -> None:
        """Give the proxy ports of closed listeners back to the pool."""
        for listener in listeners:
            self._pool.give(listener.address.port)
            self._skipped = 0

    def explain(self, plan: PortPlan, key: Hashable, why: ListenError | None) -> ListenError:
        """Return why a listener couldn't be opened, with the program that uses its port, if known.

        Args:
            key: A key of :meth:`wanted`.
            why: The error at the last address; None if no address could be tried.
        """
        has_own = self._bind is Bind.FRONTEND or _is_in_range(plan, key)
        if why is not None and not _is_taken(why):
            return why if has_own else _without_port(why, plan)
        if why is not None and has_own and isinstance(key, Frontend):
            holder = self._holder(plan.protocol, key.family, (key.port,))
            return ListenError(f"{key} is held by {holder}", hint=HELD_HINT) if holder else why
        held = ""
        if why is not None:
            others = frozenset(self._pool.free)
            holder = self._holder(plan.protocol, plan.key.family, others)
            held = f", {holder} has some" if holder else ""
        numbers = f"{self._pool.first}-{self._pool.last}"
        if self._skipped < len(self._pool.free):
            return ShortageError(
                f"cannot listen for {plan.key}",
                cause=f"no proxy port of {numbers} that was tried is free{held}",
                hint="others are tried each second",
            )
        return BoundError(
            f"cannot listen for {plan.key}",
            cause=f"no proxy port of {numbers} is free{held}",
            hint="widen --proxy-ports",
        )

    def _on_loopback(self, plan: PortPlan, frontend: Frontend) -> Iterator[SocketAddress]:
        """Yield addresses to try: a loopback frontend's own and second port, then proxy ports.

        The frontend's own port may be below ip_unprivileged_port_start, or in use.
        """
        if _is_in_range(plan, frontend):
            yield frontend.address
            return
        ip = _LOOPBACK[frontend.family]
        if is_loopback(frontend.ip):
            yield frontend.address
            ip = frontend.ip
            if self._second_port is not None and (port := self._second_port(frontend)):
                yield SocketAddress(ip, port)
        yield from self._in_range(ip, None)

    def _in_range(self, ip: str, preferred: int | None) -> Iterator[SocketAddress]:
        """Yield proxy ports to try; requesting the next port counts the last one as in use.

        A preferred port is always tried: clients are steered to it, and this proxy may hold it.
        """
        is_preferred = preferred is not None and preferred in self._pool.free
        candidates = self._pool.candidates(preferred)
        while (self._tries or is_preferred) and (port := next(candidates, None)) is not None:
            yield SocketAddress(ip, port)
            self._tries -= not is_preferred
            self._skipped += 1
            is_preferred = False


def recovered_addresses(
    recovered: Mapping[Frontend, int], bind: Bind, pool: PortPool
) -> Iterable[tuple[Protocol, SocketAddress]]:
    """Return the listen addresses of an earlier run to which rules still steer clients.

    Args:
        recovered: The frontends with their ports, from :meth:`.Steering.start`.
        pool: The proxy ports; ports of an earlier range are omitted.
    """
    if bind is Bind.FRONTEND:
        return [(frontend.protocol, frontend.address) for frontend in recovered]
    return dict.fromkeys(
        (frontend.protocol, SocketAddress(_WILDCARD[frontend.family], port))
        for frontend, port in recovered.items()
        if port in pool
    )


def _is_in_range(plan: PortPlan, key: Hashable) -> bool:
    """Return whether a key is a frontend that a port range adds, which can use no other port."""
    ranges = plan.serving.ranges
    return isinstance(key, Frontend) and any(one.offset(*key.address) for one in ranges)


def _without_port(why: ListenError, plan: PortPlan) -> ListenError:
    """Return the error without the port number, which differs with each attempt."""
    number = getattr(why.__cause__, "errno", None)
    cause, hint = why.cause, why.hint
    if plan.key.family is IPFamily.IPV6 and number in NO_IPV6:
        cause, hint = "IPv6 is switched off on this node", NO_IPV6_HINT
    error = type(why)(f"cannot listen for {plan.key}", cause=cause, hint=hint)
    error.__cause__ = why.__cause__
    return error


def _is_taken(exc: ListenError) -> bool:
    cause = exc.__cause__
    return isinstance(cause, OSError) and cause.errno == errno.EADDRINUSE


def _proxy_port(plan: PortPlan) -> Hashable:
    """Return the plane's key for the listener on the proxy port of a Service port."""
    return plan.key, plan.protocol


class HasListeners(typing.Protocol):
    """A Service port with listeners."""

    @property
    def listeners(self) -> Mapping[Frontend, Listener]:
        """The Service port's listeners."""


class ListenerIndex:
    """An index of the listeners of served ports by frontend; any thread may read it."""

    def __init__(self) -> None:
        self._owners: dict[Frontend, HasListeners] = {}

    def get(self, frontend: Frontend) -> Listener | None:
        owner = self._owners.get(frontend)
        return None if owner is None else owner.listeners.get(frontend)

    def change(
        self, owner: HasListeners, listeners: dict[Frontend, Listener] | None = None
    ) -> dict[Frontend, Listener]:
        """Replace the listeners of a Service port, by frontend; without new listeners, remove them.

        Frontends that another Service port has taken over keep that port's listeners.

        Returns:
            The Service port's own listeners from now on.
        """
        wanted = listeners or {}
        for frontend in owner.listeners.keys() - wanted.keys():
            if self._owners.get(frontend) is owner:
                del self._owners[frontend]
        self._owners.update(dict.fromkeys(wanted, owner))
        return wanted
