"""Services with backends for users' test suites, and fakes that behave like the real parts.

``plugin`` is the pytest plugin; its fixtures yield ``ServiceProxy``, ``ServiceNetwork`` and
``KubernetesServices``, and ``backends`` serve their Services. ``ProxyWithFaults`` is a ``Proxy``
with fault injection; ``fakes`` fulfil the contracts of the real parts.

Names are imported on first use, because every run of pytest loads the plugin and therefore this
package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .kubernetes_service import KubernetesService
    from .kubernetes_services import KubernetesServices
    from .proxy_with_faults import ProxyWithFaults
    from .service_network import ServiceNetwork
    from .service_proxy import ServiceProxy
    from .services import ProxiedService

__all__ = [
    "KubernetesService",
    "KubernetesServices",
    "ProxiedService",
    "ProxyWithFaults",
    "ServiceNetwork",
    "ServiceProxy",
]

_MODULES = {
    "KubernetesService": "kubernetes_service",
    "KubernetesServices": "kubernetes_services",
    "ProxiedService": "services",
    "ProxyWithFaults": "proxy_with_faults",
    "ServiceNetwork": "service_network",
    "ServiceProxy": "service_proxy",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{module}", __name__), name)
