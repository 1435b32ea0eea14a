"""Importing a part of kubernetes-asyncio, each time in a new process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from userspace_proxy.sources.kubernetes import library

LOADED = 'print(sum(m.split(".")[0] == "kubernetes_asyncio" for m in sys.modules))'


def run(*lines: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", "import sys\n" + "\n".join(lines)], capture_output=True, text=True
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_importing_the_sources_imports_no_client_library():
    assert run(
        "import userspace_proxy.sources",
        'print("aiohttp" in sys.modules)',
        "import userspace_proxy.sources.kubernetes",
        LOADED,
    ) == ["False", "0"]


def test_the_light_import_loads_no_models_and_adds_nothing_to_sys_modules():
    assert run(
        "from userspace_proxy.sources.kubernetes.library import import_library",
        "library = import_library()",
        "print(library is import_library())",
        "print(library.kube_config.Configuration(host='http://a').host)",
        LOADED,
        'print("dateutil" in sys.modules)',
    ) == ["True", "http://a", "0", "False"]


def test_a_failed_light_import_falls_back_to_the_plain_import(monkeypatch):
    def fail() -> library.Library:
        raise AttributeError("it is laid out differently")

    whole = library.import_library()
    monkeypatch.setattr(library, "_import_light", fail)
    monkeypatch.setattr(library, "_modules", lambda: whole)
    assert library.import_library.__wrapped__() is whole


def test_a_missing_kubernetes_asyncio_is_named_in_the_error(monkeypatch):
    monkeypatch.setattr(library, "_PACKAGE", "kubernetes_asyncio_is_not_here")
    with pytest.raises(ModuleNotFoundError, match="kubernetes_asyncio_is_not_here"):
        library.import_library.__wrapped__()
