"""Removes all names from a new Python process that Python lacks on macOS or Windows.

    python -c "from tests.unit.other_systems import become; become('darwin'); …"

The names of each system are read from typeshed, which mypy contains.

Rule 1: standard library modules that differ by system are imported before the removal: they keep
their behaviour on Linux, and only the names that other modules see are removed.
Rule 2: third-party packages are imported after the removal, and must work without these names.
"""

from __future__ import annotations

import ast
import ctypes
import functools
import importlib
import importlib.util
import io
import os
import platform
import select
import selectors
import shutil
import socket
import ssl
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

SYSTEMS = {"darwin": "Darwin", "win32": "Windows"}
"""The name of each system in ``platform``, by its name in ``sys.platform``."""
MODULES = ("errno", "mmap", "os", "select", "signal", "socket", "time")
"""The modules that contain other names on other systems."""
UNIX_MODULES = (
    *("crypt", "curses", "fcntl", "grp", "nis", "ossaudiodev", "posix", "pty", "pwd"),
    *("readline", "resource", "spwd", "syslog", "termios", "tty"),
)
"""Modules that Windows lacks; the code mustn't depend on the ones that macOS has, either."""
_OF_LINUX = (
    *("asyncio", "asyncio.subprocess", "concurrent.futures.thread", "ctypes.util", "getpass"),
    *("http.client", "logging.handlers", "mimetypes", "multiprocessing", "platform", "shutil"),
    *("selectors", "ssl", "subprocess", "tempfile", "urllib.request", "uuid", "webbrowser"),
)
"""Modules that the standard library and third-party packages import below."""


def become(system: str) -> None:
    """Remove all names that another system lacks; call this first, in a new process."""
    lacking = {name: lacks(name, system) for name in MODULES}
    # Reload selectors, which is already imported, so that the event loop uses another selector.
    _remove("select", lacking.pop("select"))
    importlib.reload(selectors)
    for name in _OF_LINUX:
        importlib.import_module(name)
    # asyncio selects the kind of loop when it creates the first loop.
    sys.modules["asyncio"].new_event_loop().close()
    # The name of the file with these variables depends on the system.
    sysconfig.get_config_vars()
    for name, lacked in lacking.items():
        _remove(name, lacked)
    # These modules set such variables when they are imported.
    tempfile._O_TMPFILE_WORKS = False
    subprocess._HAVE_POSIX_SPAWN_CLOSEFROM = False
    os.process_cpu_count = os.cpu_count
    _, *machine = platform.uname()[:5]
    platform._uname_cache = platform.uname_result(SYSTEMS[system], *machine)
    gone = (*UNIX_MODULES, "uvloop") if system == "win32" else UNIX_MODULES
    for name in gone:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Refusing(gone))
    if system == "win32":
        _behave_as_windows()
    sys.platform = system


def lacks(module: str, system: str) -> list[str]:
    """Return a module's names that Linux has and another system lacks."""
    there = _names(module, system)
    here = vars(importlib.import_module(module))
    return sorted(name for name in _names(module, "linux") - there if name in here)


def _remove(module: str, names: Iterable[str]) -> None:
    for name in names:
        delattr(sys.modules[module], name)


class _Refusing:
    """An import hook that raises ImportError for some modules."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)

    def find_spec(
        self, name: str, _path: object = None, _target: object = None
    ) -> ModuleSpec | None:
        if name in self._names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def _behave_as_windows() -> None:
    # Windows has no socketpair(2), so Python connects two sockets.
    socket.socketpair = _connected_pair
    select.select = functools.partial(_select, select.select)
    # On Windows, shutil removes folders by name, not by descriptor.
    shutil._use_fd_functions = False
    shutil._rmtree_impl = shutil._rmtree_unsafe
    # Source: shutil.which in Python 3.12 asks whether to search the current folder first.
    shutil._winapi = SimpleNamespace(NeedCurrentDirectoryForExePath=lambda _name: True)
    # No stream of the tests is a Windows console.
    io._WindowsConsoleIO = type("_WindowsConsoleIO", (io.RawIOBase,), {})
    ssl.enum_certificates = lambda _store: []
    ctypes.CDLL = functools.partial(_load_library, ctypes.CDLL)  # type: ignore[misc,assignment]
    loop = sys.modules["asyncio.unix_events"]._UnixSelectorEventLoop  # type: ignore[attr-defined]
    for name in ("add_reader", "add_writer", "add_signal_handler", "create_unix_connection"):
        setattr(loop, name, _not_implemented)


def _connected_pair(*_args: object) -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        return server.accept()[0], client


def _select(real, read, write, exceptional, timeout=None):
    # Source: Python's documentation of select; WSAEINVAL.
    if not (read or write or exceptional):
        raise OSError(10022, "An invalid argument was supplied")
    return real(read, write, exceptional, timeout)


def _load_library(real, name, *args, **kwargs):
    if name is None:
        raise TypeError("argument of type 'NoneType' is not iterable")
    return real(name, *args, **kwargs)


def _not_implemented(*_args: object, **_kwargs: object) -> None:
    raise NotImplementedError


def _names(module: str, system: str) -> set[str]:
    """Return the names that typeshed lists for a module on a system."""
    spec = importlib.util.find_spec("mypy")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "typeshed" / "stdlib"
    path = folder / f"{module}.pyi"
    text = (path if path.exists() else folder / module / "__init__.pyi").read_text()
    platform = SimpleNamespace(platform=system, version_info=sys.version_info)
    return set(_defined(ast.parse(text).body, {"sys": platform}))


def _defined(statements: Iterable[ast.stmt], variables: dict[str, object]) -> Iterator[str]:
    for node in statements:
        match node:
            case ast.If(test=test):
                is_so = eval(compile(ast.Expression(test), "", "eval"), variables)
                yield from _defined(node.body if is_so else node.orelse, variables)
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name
            case ast.Assign(targets=[ast.Name(id=name)]):
                yield name
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                yield from (alias.asname or alias.name for alias in names)
