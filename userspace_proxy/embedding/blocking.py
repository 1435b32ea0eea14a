"""Provides ``Proxy``, and its blocking form for programs without an event loop.

Each blocking method has the signature and docstring of a method in ``embedded_proxy``, which it
runs in the proxy's thread.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from functools import wraps
from inspect import signature
from types import TracebackType
from typing import Any, ClassVar, Concatenate, Generic, NoReturn, ParamSpec, Self, TypeVar

from ..agent.rounds.options import Options
from ..model import Service, ServiceKey, SocketAddress
from ..sources import Source
from ..steering import Steering
from .embedded_proxy import AddedService, EmbeddedProxy
from .loop_thread import LoopThread

_O = TypeVar("_O", covariant=True)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class InThread(Generic[_O]):
    """The base of classes that call methods of an object in the thread of a proxy."""

    _thread: LoopThread
    _object: _O


def called(
    method: Callable[Concatenate[_O, _P], _T],
) -> Callable[Concatenate[InThread[Any], _P], _T]:
    """Wrap a method so that it is called in the proxy's thread."""

    @wraps(method)
    def call(self: InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.do(lambda: _bound(self._object, method)(*args, **kwargs))

    return call


def awaited(
    method: Callable[Concatenate[_O, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[InThread[Any], _P], _T]:
    """Wrap a coroutine method so that it is awaited in the proxy's thread."""

    @wraps(method)
    def call(self: InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.call(_bound(self._object, method)(*args, **kwargs))

    return call


def entered(
    method: Callable[Concatenate[_O, _P], AbstractAsyncContextManager[_T]],
) -> Callable[Concatenate[InThread[Any], _P], AbstractContextManager[_T]]:
    """Wrap an async context manager for use in `with`; it is entered in the proxy's thread."""

    @contextlib.contextmanager
    @wraps(method)
    def call(self: InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> Iterator[_T]:
        stack = contextlib.AsyncExitStack()
        block = _bound(self._object, method)(*args, **kwargs)
        value = self._thread.call(stack.enter_async_context(block))
        try:
            yield value
        finally:
            self._thread.call(stack.aclose())

    return call


def _bound(owner: object, method: Callable[..., _T]) -> Callable[..., _T]:
    """Return the object's method, which its class may override."""
    bound: Callable[..., _T] = getattr(owner, method.__name__)
    return bound


def _adding(
    method: Callable[Concatenate[_O, _P], Coroutine[Any, Any, AddedService]],
) -> Callable[Concatenate[InThread[_O], _P], BlockingService]:
    """Wrap a coroutine method so that it returns a blocking handle."""
    add = awaited(method)

    @wraps(method)
    def call(self: InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> BlockingService:
        return BlockingService(self._thread, add(self, *args, **kwargs))

    # Without this, help() would show the asynchronous handle as the result.
    shown = signature(method).replace(return_annotation=BlockingService.__name__)
    vars(call)["__signature__"] = shown
    return call


class BlockingService(InThread[AddedService]):
    """A Service that :meth:`BlockingProxy.add_service` serves."""

    def __init__(self, thread: LoopThread, service: AddedService) -> None:
        self._thread = thread
        self._object = service

    def __repr__(self) -> str:
        if not self._thread.is_running:
            return f"<Service {self.key}, not served>"
        return self._thread.do(lambda: repr(self._object))

    @property
    def service(self) -> Service:
        """The Service as it was added."""
        return self._object.service

    @property
    def key(self) -> ServiceKey:
        """The Service's namespace and name."""
        return self._object.key

    @property
    def address(self) -> SocketAddress:
        """The address to dial: unpacks into host and port.

        Raises:
            LookupError: The Service isn't served, or no longer is.
        """
        return self._thread.do(lambda: self._object.address)

    set_endpoints = awaited(AddedService.set_endpoints)
    put = awaited(AddedService.put)
    remove = awaited(AddedService.remove)


class BlockingProxy(InThread[EmbeddedProxy]):
    """A Service proxy in its own thread, with the methods of ``Proxy`` without ``await``.

    ``with Proxy.in_thread() as proxy`` creates, starts and stops such a proxy. Any thread other
    than the proxy's own may call its methods.

    Args:
        arguments: The arguments of ``Proxy``.
    """

    proxy_class: ClassVar[type[EmbeddedProxy]] = EmbeddedProxy
    """The class that runs in the thread. A subclass may name a class with more methods, and expose
    these with :func:`called` and :func:`awaited`."""

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        self._thread = LoopThread()
        self._life = threading.RLock()
        """Serializes :meth:`start` and :meth:`close` across threads."""

    def __repr__(self) -> str:
        if not self._thread.is_running:
            return "<BlockingProxy, not running>"
        return f"<BlockingProxy of {self._thread.do(lambda: repr(self._object))}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _exc: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def start(self) -> None:
        """Start the thread and the proxy in it; :meth:`close` stops both.

        Raises the exceptions of ``Proxy.start``, and RuntimeError if this proxy is running.
        """
        with self._life:
            if self._thread.is_running:
                raise RuntimeError("this proxy is running: close() ends it")
            self._thread = LoopThread()
            try:
                self._thread.start()
                # Create the proxy in the thread, because its events belong to the loop that is
                # running.
                self._object = self._thread.do(lambda: self.proxy_class(**self._arguments))
                self._thread.call(self._object.start())
            except BaseException:
                self._thread.close()
                raise

    def close(self) -> None:
        """Stop the proxy and end its thread. Idempotent.

        Pending calls in other threads raise a RuntimeError.
        """
        self._thread.check_caller()
        with self._life:
            if self._thread.is_running:
                try:
                    self._thread.call(self._object.stop())
                finally:
                    self._thread.close()

    @property
    def dns_address(self) -> SocketAddress | None:
        """The address of the DNS server for Services; None while no such server is open."""
        return self._thread.do(lambda: self._object.dns_address)

    add_service = _adding(EmbeddedProxy.add_service)
    put = awaited(EmbeddedProxy.put)
    delete = awaited(EmbeddedProxy.delete)
    detour = called(EmbeddedProxy.detour)
    observe = entered(EmbeddedProxy.observe)
    endpoints_of = called(EmbeddedProxy.endpoints_of)
    choose_next = called(EmbeddedProxy.choose_next)
    address_of = called(EmbeddedProxy.address_of)
    names = called(EmbeddedProxy.names)
    resolver = called(EmbeddedProxy.resolver)
    settled = awaited(EmbeddedProxy.settled)
    status = called(EmbeddedProxy.status)
    failed = awaited(EmbeddedProxy.failed)
    stop = awaited(EmbeddedProxy.stop)


class Proxy(EmbeddedProxy):
    """A Service proxy; unless it is running, most methods raise a RuntimeError.

    Args:
        steering: ``none`` (no privileges: frontends are loopback addresses), ``local``,
            ``nftables``, ``iptables`` or ``auto``; or your own steering.
        source: The source of Services; None to serve only Services from :meth:`add_service`.
        options: All other options.
    """

    @staticmethod
    def in_thread(
        *,
        steering: str | Steering = "none",
        source: Source | None = None,
        options: Options | None = None,
    ) -> BlockingProxy:
        """Return a proxy for programs without an event loop: ``with`` starts and stops it.

        The returned proxy has the same methods without ``await``, and runs in its own thread. For
        arguments, see :class:`Proxy`; a source must not be tied to another event loop.
        """
        return BlockingProxy(steering=steering, source=source, options=options)

    def __enter__(self) -> NoReturn:
        raise TypeError("Proxy: use `async with Proxy(…)`, or `with Proxy.in_thread(…)`")

    def __exit__(self, *_exc: object) -> None:
        """Do nothing; without this method, `with` would fail before calling ``__enter__``."""
