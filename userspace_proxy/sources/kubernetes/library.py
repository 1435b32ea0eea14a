"""Imports the few used parts of kubernetes-asyncio, without its models.

``import kubernetes_asyncio``, or any part of it, imports 700 modules of generated models
and APIs: 1.2 s and 95 MiB; the used parts (configuration, credentials, transport,
aiohttp included) take 0.3 s and 31 MiB (measured, Python 3.11, version 36.1.0). Most of
it comes in by the two ``__init__`` files, so while these parts are imported, bare packages
with the same folders replace them; afterwards all of it is removed from ``sys.modules``, and
a later import of kubernetes_asyncio gets a complete, separate copy.

Rule 1: if the program has imported it already, that copy is used.
Rule 2: if the light way fails (another version with another layout), a plain import is
the fallback; it only costs more.
Rule 3: only the event loop's thread runs this, and it doesn't await in between.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Any

_log = logging.getLogger("userspace_proxy.sources")

_PACKAGE = "kubernetes_asyncio"


@dataclass(frozen=True, slots=True)
class Library:
    """The parts of kubernetes-asyncio that we use."""

    configuration: Any
    """Class ``Configuration``: address, TLS files, token."""
    rest: Any
    """Class ``RESTClientObject``: the transport."""
    kube_config: Any
    """Module: kubeconfig files, with exec plugins, OIDC and client certificates."""
    incluster_config: Any
    """Module: the service account of a pod."""
    config_error: type[Exception]
    """What its configuration raises on purpose."""


_imported: Library | None = None


def import_library() -> Library:
    """Return the parts, importing them the first time.

    Raises:
        ImportError: kubernetes-asyncio isn't installed, or lacks one of them.
    """
    global _imported  # noqa: PLW0603 - as an import is: once per process
    if _imported is None:
        _imported = _import()
    return _imported


def _import() -> Library:
    if _PACKAGE in sys.modules:
        return _parts()
    try:
        return _import_light()
    except (ImportError, AttributeError) as exc:
        _log.debug("importing all of kubernetes-asyncio", extra={"reason": str(exc)})
        _forget()
        return _parts()


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
        # Named by kube_config for a function that makes clients, which we don't call.
        client.ApiClient = object  # type: ignore[attr-defined]
        return _parts()
    finally:
        _forget()


def _parts() -> Library:
    return Library(
        configuration=importlib.import_module(f"{_PACKAGE}.client.configuration").Configuration,
        rest=importlib.import_module(f"{_PACKAGE}.client.rest").RESTClientObject,
        kube_config=importlib.import_module(f"{_PACKAGE}.config.kube_config"),
        incluster_config=importlib.import_module(f"{_PACKAGE}.config.incluster_config"),
        config_error=importlib.import_module(f"{_PACKAGE}.config.config_exception").ConfigException,
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
