"""Generates userspace_proxy/agent/blocking.py, the embedded proxy's calls without ``await``.

Run it as ``make docs``; a test checks that the file is up to date. Each public method and property
of the classes below is repeated with its signature and docstring, and runs in the proxy's thread.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "userspace_proxy" / "agent"
TARGET = PACKAGE / "blocking.py"

HEAD = '''"""The embedded proxy for programs without an event loop.

Generated from ``embedding`` and ``agent`` by `make docs`: don't edit it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, Unpack

from ..errors import UserspaceProxyError
from ..lookup.in_process import ProcessNames
from ..model import Balance, EndpointSlice, Service, ServiceKey, SocketAddress
from ..status.view import StatusView
from .added_service import AddedService
from .arguments import EndpointAddress, HandlingArguments
from .embedding import EmbeddedProxy
from .loop_thread import LoopThread

if TYPE_CHECKING:
    from ..lookup.aiohttp_resolver import ServiceResolver


class BlockingProxy:
    """A Service proxy in a thread of its own, with the calls of ``Proxy`` without ``await``.

    ``with Proxy.in_thread() as proxy`` creates, starts and stops it. Its calls may come from any
    thread but the proxy's own.

    Args:
        arguments: Those of ``Proxy``.
    """

    def __init__(self, **arguments: Any) -> None:
        self._arguments = arguments
        self._thread: LoopThread
        self._proxy: EmbeddedProxy

    def __repr__(self) -> str:
        if not hasattr(self, "_thread") or not self._thread.is_running:
            return "<BlockingProxy, not running>"
        return f"<BlockingProxy of {self._thread.do(lambda: repr(self._proxy))}>"

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
            self._proxy = self._thread.do(lambda: EmbeddedProxy(**self._arguments))
            self._thread.call(self._proxy.start())
        except BaseException:
            self._thread.close()
            raise

    def serve_toxiproxy(self, bind: tuple[str, int] = ("127.0.0.1", 8474)) -> tuple[str, int]:
        """Serve toxiproxy's HTTP API until the proxy stops, and return its address."""
        from .toxiproxy import serve_toxiproxy

        return self._thread.call(serve_toxiproxy(self._proxy, bind))

    def close(self) -> None:
        """Stop the proxy and end its thread. Idempotent."""
        if self._thread.is_running:
            try:
                self._thread.call(self._proxy.stop())
            finally:
                self._thread.close()

    @property
    def dns_address(self) -> SocketAddress | None:
        """Where names of Services are answered by DNS; None: nowhere."""
        return self._thread.do(lambda: self._proxy.dns_address)
'''

SERVICE = '''

class BlockingService:
    """A Service that :meth:`BlockingProxy.add_service` serves."""

    def __init__(self, thread: LoopThread, service: AddedService) -> None:
        self._thread = thread
        self._service = service

    def __repr__(self) -> str:
        if not self._thread.is_running:
            return f"<Service {self._service.key}, not served>"
        return self._thread.do(lambda: repr(self._service))
'''

# The order of the methods, by class and module.
PROXY = (
    (
        "embedding.py",
        "EmbeddedProxy",
        (
            "add_service",
            "put",
            "delete",
            "add_fault",
            "remove_faults",
            "faults_of",
            "choose_next",
            "address_of",
        ),
    ),
    (
        "embedding.py",
        "EmbeddedProxy",
        ("names", "resolver"),
    ),
    ("agent.py", "Agent", ("settled", "status", "failed", "stop")),
)
HANDLE = (
    ("added_service.py", "AddedService", ("service", "key", "address", "set_endpoints", "remove")),
)
_BLOCKING = {"AddedService": "BlockingService"}


def generate() -> str:
    """Return the text of the file."""
    parts = [HEAD, *_methods(PROXY, "_proxy"), SERVICE, *_methods(HANDLE, "_service")]
    return _formatted("".join(parts))


def _methods(wanted: Iterable[tuple[str, str, tuple[str, ...]]], attribute: str) -> Iterator[str]:
    for module, name, methods in wanted:
        tree = ast.parse((PACKAGE / module).read_text())
        found = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
        by_name = {
            node.name: node
            for node in found.body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for method in methods:
            yield "\n" + _blocking(by_name[method], attribute)


def _blocking(method: ast.FunctionDef | ast.AsyncFunctionDef, attribute: str) -> str:
    """Return a method that runs another one in the proxy's thread."""
    target = f"self.{attribute}.{method.name}"
    is_property = bool(method.decorator_list)
    called = target if is_property else f"{target}({', '.join(_passed(method.args))})"
    is_async = isinstance(method, ast.AsyncFunctionDef)
    if is_async:
        run = f"self._thread.call({called})"
    elif called == f"{target}()":
        run = f"self._thread.do({target})"
    else:
        run = f"self._thread.do(lambda: {called})"
    returns = ast.unparse(method.returns) if method.returns else "None"
    if returns in _BLOCKING:
        run = f"{_BLOCKING[returns]}(self._thread, {run})"
    lines = ["@property"] if is_property else []
    arguments = ast.unparse(method.args)
    lines.append(f"def {method.name}({arguments}) -> {_BLOCKING.get(returns, returns)}:")
    docstring = ast.get_docstring(method, clean=True) or ""
    lines += _indented(_docstring(docstring), 4)
    lines.append(f"    {run}" if returns == "None" else f"    return {run}")
    return "\n".join(_indented("\n".join(lines), 4)) + "\n"


def _passed(arguments: ast.arguments) -> Iterator[str]:
    for argument in arguments.args[1:]:
        yield argument.arg
    for argument in arguments.kwonlyargs:
        yield f"{argument.arg}={argument.arg}"
    if arguments.kwarg is not None:
        yield f"**{arguments.kwarg.arg}"


def _docstring(text: str) -> str:
    return f'"""{text}\n"""' if "\n" in text else f'"""{text}"""'


def _indented(text: str, spaces: int) -> list[str]:
    return [" " * spaces + line if line else "" for line in text.split("\n")]


def _formatted(text: str) -> str:
    ruff = [sys.executable, "-m", "ruff", "format", f"--stdin-filename={TARGET}", "-"]
    done = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True)
    return done.stdout


if __name__ == "__main__":
    TARGET.write_text(generate())
