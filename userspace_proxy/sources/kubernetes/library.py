"""Imports only the required modules of kubernetes-asyncio, without its models.

``import kubernetes_asyncio``, or any part of it, imports 700 modules of generated models and APIs,
which takes 1.2 s and 95 MiB. The used parts (configuration and credentials, with aiohttp) take
0.3 s and 31 MiB (measured, Python 3.11, version 36.1.0). The two ``__init__`` files import most of
the modules, so empty packages with the same folders replace them during the import. Afterwards, all
modules are removed from ``sys.modules``, so a later import of kubernetes_asyncio returns a
complete, separate copy. The image contains only the used parts.

Rule 1: if the program has already imported kubernetes-asyncio, that copy is used.
Rule 2: if this import fails (another version with another layout), a plain import is the fallback.
The image has no fallback, so its test runs this import.
Rule 3: only the event loop's thread runs the import, without awaiting in between.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, NamedTuple

from ...log_fields import FieldLogger

_log = FieldLogger("userspace_proxy.sources")

_PACKAGE = "kubernetes_asyncio"


class Library(NamedTuple):
    """The used modules of kubernetes-asyncio."""

    kube_config: Any
    """The module with Configuration and ConfigException."""
    incluster_config: Any
    """The module that reads a pod's service account."""


@functools.cache
def import_library() -> Library:
    """Return the modules, imported once per process.

    Raises:
        ImportError: kubernetes-asyncio isn't installed, or lacks one of the modules.
    """
    if _PACKAGE in sys.modules:
        return _modules()
    try:
        return _import_light()
    except (ImportError, AttributeError) as exc:
        text = "cannot import only parts of kubernetes-asyncio, importing all of it: %(cause)s"
        _log.debug(text, extra={"cause": str(exc)})
        _forget()
        return _modules()


def _import_light() -> Library:
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError("kubernetes-asyncio is not installed", name=_PACKAGE)
    folders = list(spec.submodule_search_locations)
    package = _bare(_PACKAGE, folders)
    client = _bare(f"{_PACKAGE}.client", [f"{folder}/client" for folder in folders])
    package.client = client  # type: ignore[attr-defined]
    try:
        configuration = importlib.import_module(f"{_PACKAGE}.client.configuration")
        client.Configuration = configuration.Configuration  # type: ignore[attr-defined]
        # A placeholder suffices: kube_config needs ApiClient only in functions not used here.
        client.ApiClient = object  # type: ignore[attr-defined]
        return _modules()
    finally:
        _forget()


def _modules() -> Library:
    return Library(
        importlib.import_module(f"{_PACKAGE}.config.kube_config"),
        importlib.import_module(f"{_PACKAGE}.config.incluster_config"),
    )


def _bare(name: str, folders: list[str]) -> ModuleType:
    module = ModuleType(name)
    module.__path__ = folders
    sys.modules[name] = module
    return module


def _forget() -> None:
    for name in list(sys.modules):
        if name == _PACKAGE or name.startswith(f"{_PACKAGE}."):
            del sys.modules[name]
