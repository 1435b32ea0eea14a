"""Puts the faults in force that plans contain, because annotations ask for them.

Rule 1: an endpoint whose faults stay the same keeps its server, and so its open connections.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..errors import ConfigError
from ..log_fields import FieldLogger
from ..model import Fault, ServiceKey, SocketAddress
from ..plan import PortKey, PortPlan

if TYPE_CHECKING:
    from .faults import At, EndpointFaults

_log = FieldLogger("userspace_proxy.agent")

_Wanted = Mapping["At", tuple[Fault, ...]]
_NOTHING: _Wanted = {}


class AnnotatedFaults:
    """The faults of one proxy's Services.

    Args:
        detour: As for :class:`.EndpointFaults`.
    """

    def __init__(self, detour: Callable[[ServiceKey, Mapping[At, SocketAddress]], object]) -> None:
        self._detour = detour
        self._made: EndpointFaults | None = None
        self._ports: dict[ServiceKey, dict[PortKey, _Wanted]] = {}
        """What each Service port asks for, without those that ask for nothing."""

    @property
    def made(self) -> EndpointFaults:
        """All faults in force, those that calls have set included; it lives in the running loop."""
        if self._made is None:
            # Few proxies have faults.
            from .faults import EndpointFaults

            self._made = EndpointFaults(self._detour)
        return self._made

    def of(self, service: ServiceKey) -> Mapping[SocketAddress, Sequence[str]]:
        """Return the faults of a Service in words, by endpoint."""
        return {} if self._made is None else self._made.of(service)

    def follow(self, plan: PortPlan) -> None:
        """Have the endpoints of a Service port suffer what its plan contains."""
        if plan.faults or plan.key.name.service in self._ports:
            self._change(plan.key, _wanted(plan))

    def forget(self, key: PortKey) -> None:
        """End what a Service port asked for; idempotent."""
        if key.name.service in self._ports:
            self._change(key, _NOTHING)

    def close(self) -> None:
        """End all servers. Idempotent."""
        self._ports.clear()
        if self._made is not None:
            self._made.close()

    def _change(self, key: PortKey, wanted: _Wanted) -> None:
        service = key.name.service
        before = self._of_service(service)
        ports = self._ports.setdefault(service, {})
        ports[key] = wanted
        if not wanted:
            del ports[key]
        if not ports:
            del self._ports[service]
        after = self._of_service(service)
        for at in before:
            if after.get(at) != before[at]:
                self.made.remove(service, at.endpoint, at.protocol)
        for at, faults in after.items():
            if before.get(at) != faults:
                self._add(service, at, faults)

    def _of_service(self, service: ServiceKey) -> _Wanted:
        return {
            at: f for wanted in self._ports.get(service, {}).values() for at, f in wanted.items()
        }

    def _add(self, service: ServiceKey, at: At, faults: Sequence[Fault]) -> None:
        fields = {"service": str(service), "endpoint": str(at.endpoint)}
        try:
            for number, fault in enumerate(faults):
                self.made.add(
                    service,
                    at.endpoint,
                    at.protocol,
                    fault.type,
                    dict(fault.attributes),
                    stream=fault.stream,
                    toxicity=fault.toxicity,
                    name=f"annotation {number}",
                )
        except (ConfigError, OSError) as exc:
            cause = {"cause": str(exc)}
            _log.warning(
                "%(service)s: no fault on purpose at %(endpoint)s: %(cause)s", extra=fields | cause
            )
            return
        words = ", ".join(self.made.of(service)[at.endpoint])
        _log.warning(
            "%(service)s: %(endpoint)s has a fault on purpose: %(faults)s",
            extra=fields | {"faults": words},
        )


def _wanted(plan: PortPlan) -> _Wanted:
    from .faults import At

    wanted = {
        At(plan.protocol, verdict.address): tuple(
            fault for fault in plan.faults if fault.affects(verdict.address)
        )
        for verdict in plan.endpoints
    }
    return {at: faults for at, faults in wanted.items() if faults}
