"""Sources that read the fake API server without pauses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from userspace_proxy.sources.kubernetes import KubernetesSource
from userspace_proxy.sources.kubernetes.reflector import Timing
from userspace_proxy_testing.fakes.api_server import FakeApiServer

QUICK = Timing(backoff_base_s=0.001, backoff_cap_s=0.002)


@pytest.fixture(autouse=True)
def always(nothing_of_this_machine: None) -> None:
    """Use ``nothing_of_this_machine`` in all tests here, even without the fake API server."""


@pytest.fixture
def source_of() -> Callable[..., KubernetesSource]:
    def source_of(api: FakeApiServer, **options) -> KubernetesSource:
        return KubernetesSource(**{"master": api.url, "timing": QUICK, **options})

    return source_of
