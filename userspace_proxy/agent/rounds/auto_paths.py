"""Decides which Service ports with path ``auto`` use the kernel.

    probe ─▶ endpoint is fit? ─▶ all endpoints of a Service port are ─▶ kernel
                                 one isn't, or wasn't probed yet     ─▶ userspace

Rule 1: an endpoint is unfit from a failed probe until PASSES consecutive probes have passed.
Rule 2: endpoints are probed once, however many Service ports share them.
Rule 3: a UDP Service port can't be probed: the kernel carries it while it has endpoints.
Rule 4: if a Service port has left the kernel path because its clients got no answer, it returns
only when the watcher that detected the failure decides so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from ...causes.cause import Cause
from ...causes.endpoints import dial_failed
from ...causes.say import say
from ...facts.units import plural
from ...model import DataPath, DialFailure, PortKey, Protocol, SocketAddress
from ...plan import PortPlan
from ...plane.path_probes import Note, PathProbes
from ...policy import PathDecision
from .kernel_path import endpoints_of

PASSES = 2
"""The number of consecutive probes that must pass after a failure."""
NO_ENDPOINTS = PathDecision(DataPath.USERSPACE, "it has no usable endpoint")
NOT_PROBED = PathDecision(DataPath.KERNEL, "endpoints of UDP aren't probed")


@dataclass(slots=True, eq=False)
class _Endpoint:
    """The probe results of an endpoint."""

    passes: int = 0
    """The number of consecutive passed probes."""
    wanted: int = 1
    """The number of consecutive passed probes from which the endpoint is fit."""
    failed: DialFailure | None = None
    """The error of the last failed probe; None once the endpoint is fit."""
    ports: dict[PortKey, None] = field(default_factory=dict)

    @property
    def is_fit(self) -> bool:
        return self.passes >= self.wanted


@dataclass(slots=True, eq=False)
class _Port:
    """A Service port that the kernel carries while no endpoint is unfit."""

    endpoints: frozenset[SocketAddress] = frozenset()
    unfit: dict[SocketAddress, None] = field(default_factory=dict)


class AutoPaths:
    """Decides the paths of one proxy's Service ports with path ``auto``, by probing endpoints."""

    def __init__(self, make_probes: Callable[[Note], PathProbes] = PathProbes) -> None:
        self.on_change: Callable[[], None] = lambda: None
        """Called when :meth:`take` would return changes."""
        self.probes = make_probes(self.note)
        self._endpoints: dict[SocketAddress, _Endpoint] = {}
        self._ports: dict[PortKey, _Port] = {}
        self._changed: dict[PortKey, None] = {}
        self._unanswered: dict[PortKey, Cause] = {}
        """Why clients got no answer, by Service port that has left the kernel path."""

    def follow(self, plan: PortPlan) -> PathDecision:
        """Return a Service port's path, and probe its endpoints from now on if ``auto`` and TCP."""
        if plan.path.path is not DataPath.AUTO:
            self.forget(plan.key)
            return plan.path
        endpoints = frozenset(endpoints_of(plan.serving))
        if not endpoints or plan.protocol is Protocol.UDP:
            self._end_probes(plan.key)
            return self._choose(plan.key) if endpoints else NO_ENDPOINTS
        port = self._ports.setdefault(plan.key, _Port())
        before, port.endpoints = port.endpoints, endpoints
        for endpoint in endpoints - before:
            self._watch(endpoint, plan.key, port)
        for endpoint in before - endpoints:
            self._unwatch(endpoint, plan.key, port)
        return self._choose(plan.key)

    def leave_kernel(self, key: PortKey, cause: Cause) -> None:
        """Move a Service port with path ``auto`` to userspace, until :meth:`return_to_kernel`.

        Args:
            cause: Why its clients get no answer on the kernel path.
        """
        self._unanswered[key] = cause
        self._changed[key] = None
        self.on_change()

    def return_to_kernel(self, key: PortKey) -> None:
        """Undo :meth:`leave_kernel`: probes choose the path again (not for UDP). Idempotent."""
        if self._unanswered.pop(key, None) is not None:
            self._changed[key] = None
            self.on_change()

    def forget(self, key: PortKey) -> None:
        """Stop probing for a Service port, and forget its results. Idempotent."""
        self._end_probes(key)
        self._unanswered.pop(key, None)

    def _end_probes(self, key: PortKey) -> None:
        port = self._ports.pop(key, None)
        self._changed.pop(key, None)
        if port is not None:
            for endpoint in port.endpoints:
                self._unwatch(endpoint, key, port)

    def take(self) -> dict[PortKey, PathDecision]:
        """Return the decisions whose path or reason may have changed since the last call."""
        changed, self._changed = self._changed, {}
        return {key: self._choose(key) for key in changed}

    def note(self, endpoint: SocketAddress, failed: DialFailure | None) -> None:
        """Record the result of a probe: the failure, or None for an answer."""
        known = self._endpoints[endpoint]
        was_fit, before = known.is_fit, known.failed
        if failed:
            known.passes, known.wanted, known.failed = 0, PASSES, failed
        else:
            known.passes += 1
            if not was_fit and known.is_fit:
                known.wanted, known.failed = 1, None
        if was_fit is known.is_fit and before == known.failed:
            return
        for key in known.ports:
            port = self._ports[key]
            if known.is_fit:
                port.unfit.pop(endpoint, None)
            else:
                port.unfit[endpoint] = None
            # An endpoint's first answer doesn't change the path while other endpoints are unfit.
            if not port.unfit or before or failed:
                self._changed[key] = None
        if self._changed:
            self.on_change()

    def close(self) -> None:
        self.probes.close()

    def _watch(self, endpoint: SocketAddress, key: PortKey, port: _Port) -> None:
        known = self._endpoints.get(endpoint)
        if known is None:
            known = self._endpoints[endpoint] = _Endpoint()
        self.probes.add(endpoint, key.name.service)
        known.ports[key] = None
        if not known.is_fit:
            port.unfit[endpoint] = None

    def _unwatch(self, endpoint: SocketAddress, key: PortKey, port: _Port) -> None:
        known = self._endpoints[endpoint]
        port.unfit.pop(endpoint, None)
        del known.ports[key]
        if not known.ports:
            del self._endpoints[endpoint]
        self.probes.discard(endpoint, key.name.service)

    def _choose(self, key: PortKey) -> PathDecision:
        if (unanswered := self._unanswered.get(key)) is not None:
            silent = f"auto, and not on the kernel path: {say(unanswered)}"
            return PathDecision(DataPath.USERSPACE, silent)
        if (port := self._ports.get(key)) is None:
            return NOT_PROBED
        if not port.unfit:
            what = plural(len(port.endpoints), "endpoint")
            answer = "answers" if len(port.endpoints) == 1 else "answer"
            return PathDecision(DataPath.KERNEL, f"auto, and {what} {answer} probes")
        failed = [
            (endpoint, why) for endpoint in port.unfit if (why := self._endpoints[endpoint].failed)
        ]
        if not failed:
            what = plural(len(port.unfit), "endpoint")
            return PathDecision(DataPath.USERSPACE, f"auto, and {what} still to be probed")
        endpoint, (failure, number) = failed[0]
        cause = say(dial_failed(endpoint, failure, os.strerror(number)))
        more = f"; {plural(len(failed) - 1, 'other')} failed" if len(failed) > 1 else ""
        return PathDecision(DataPath.USERSPACE, f"auto, and a probe failed: {cause}{more}")
