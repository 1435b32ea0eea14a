"""For users' test suites: Services with backends, and fakes with the contract of the real parts.

``plugin`` is the pytest plugin; ``ServiceProxy``, ``service_network.ServiceNetwork`` and
``kubernetes_services.KubernetesServices`` are what its fixtures yield, and ``backends`` are what
their Services are made of.
``proxy_with_faults.ProxyWithFaults`` is a ``Proxy`` whose endpoints can have faults; ``fakes`` have
the contract of the real parts. They are public: import them from their modules.

``ServiceProxy`` is imported when it is first used: the plugin is a part of this package, and every
run of pytest loads it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .service_proxy import ServiceProxy

__all__ = ["ServiceProxy"]


def __getattr__(name: str) -> object:
    if name == "ServiceProxy":
        from .service_proxy import ServiceProxy

        return ServiceProxy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
