"""The embedded proxy for programs without an event loop.

Each call is one of ``embedding`` and ``added_service`` with its signature and docstring; it runs in
the proxy's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from inspect import signature
from types import TracebackType
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar

from ..model import Service, ServiceKey, SocketAddress
from .added_service import AddedService
from .embedded_proxy import EmbeddedProxy
from .loop_thread import LoopThread

_O = TypeVar("_O", covariant=True)
_P = ParamSpec("_P")
_T = TypeVar("_T")


class _InThread(Generic[_O]):
    """The calls of an object that lives in a proxy's thread."""

    _thread: LoopThread
    _object: _O


def _called(
    method: Callable[Concatenate[_O, _P], _T],
) -> Callable[Concatenate[_InThread[_O], _P], _T]:
    """Return a method that calls this one in the proxy's thread."""

    @wraps(method)
    def call(self: _InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.do(lambda: method(self._object, *args, **kwargs))

    return call


def _awaited(
    method: Callable[Concatenate[_O, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[_InThread[_O], _P], _T]:
    """Return a method that awaits this one in the proxy's thread."""

    @wraps(method)
    def call(self: _InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return self._thread.call(method(self._object, *args, **kwargs))

    return call


def _adding(
    method: Callable[Concatenate[_O, _P], Coroutine[Any, Any, AddedService]],
) -> Callable[Concatenate[_InThread[_O], _P], BlockingService]:
    """Return a method that awaits this one, and returns a handle that blocks."""
    add = _awaited(method)

    @wraps(method)
    def call(self: _InThread[_O], /, *args: _P.args, **kwargs: _P.kwargs) -> BlockingService:
        return BlockingService(self._thread, add(self, *args, **kwargs))

    # For help(): else it shows the handle whose calls are awaited.
    shown = signature(method).replace(return_annotation=BlockingService.__name__)
    vars(call)["__signature__"] = shown
    return call


class BlockingService(_InThread[AddedService]):
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
        """The Service as it was put."""
        return self._object.service

    @property
    def key(self) -> ServiceKey:
        """Its namespace and name."""
        return self._object.key

    @property
    def address(self) -> SocketAddress:
        """The address to dial: unpacks into host and port.

        Raises:
            LookupError: It isn't served (any more).
        """
        return self._thread.do(lambda: self._object.address)

    set_endpoints = _awaited(AddedService.set_endpoints)
    remove = _awaited(AddedService.remove)


class BlockingProxy(_InThread[EmbeddedProxy]):
    """A Service proxy in a thread of its own, with the calls of ``Proxy`` without ``await``.

    ``with Proxy.in_thread() as proxy`` creates, starts and stops it. Its calls may come from any
    thread but the proxy's own.

    Args:
        arguments: Those of ``Proxy``.
    """

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments

    def __repr__(self) -> str:
        if not hasattr(self, "_thread") or not self._thread.is_running:
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
        """Start the thread, and the proxy in it; :meth:`close` undoes it.

        Raises what ``Proxy.start`` raises.
        """
        self._thread = LoopThread()
        try:
            # Its events belong to the loop in which it is created.
            self._object = self._thread.do(lambda: EmbeddedProxy(**self._arguments))
            self._thread.call(self._object.start())
        except BaseException:
            self._thread.close()
            raise

    def close(self) -> None:
        """Stop the proxy and end its thread. Idempotent."""
        if self._thread.is_running:
            try:
                self._thread.call(self._object.stop())
            finally:
                self._thread.close()

    def serve_toxiproxy(self, bind: tuple[str, int] = ("127.0.0.1", 8474)) -> tuple[str, int]:
        """Serve toxiproxy's HTTP API until the proxy stops, and return its address."""
        from .toxiproxy import serve_toxiproxy

        return self._thread.call(serve_toxiproxy(self._object, bind))

    @property
    def dns_address(self) -> SocketAddress | None:
        """Where names of Services are answered by DNS; None: nowhere."""
        return self._thread.do(lambda: self._object.dns_address)

    add_service = _adding(EmbeddedProxy.add_service)
    put = _awaited(EmbeddedProxy.put)
    delete = _awaited(EmbeddedProxy.delete)
    add_fault = _called(EmbeddedProxy.add_fault)
    remove_faults = _called(EmbeddedProxy.remove_faults)
    faults_of = _called(EmbeddedProxy.faults_of)
    choose_next = _called(EmbeddedProxy.choose_next)
    address_of = _called(EmbeddedProxy.address_of)
    names = _called(EmbeddedProxy.names)
    resolver = _called(EmbeddedProxy.resolver)
    settled = _awaited(EmbeddedProxy.settled)
    status = _called(EmbeddedProxy.status)
    failed = _awaited(EmbeddedProxy.failed)
    stop = _awaited(EmbeddedProxy.stop)
