"""Sends Kubernetes Events.

Rule 1: no code waits for an Event, and a failure to send one affects nothing else.
Rule 2: requests are ``APART_S`` apart, and namespaces take turns.
Rule 3: a missing permission to write Events is logged once, and requests are retried rarely; a role
may permit only some namespaces, so each namespace that forbids Events is silenced separately.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ...clocks import Clocks
from ...log_fields import FieldLogger
from ...model import ServiceKey
from ..base import Happening, Pause, pause
from .api_paths import join
from .client import ApiClient
from .events import APART_S, EVERY_S, Correlator, Series, new_event, path_of, series_patch
from .responses import Response, TransportError, cause_of

_log = FieldLogger("userspace_proxy.sources")

# The pause after a 401 or 403: until an administrator acts, requests only fill the server's log.
FORBIDDEN_S = 600.0
# The text of a 403 from the server's NamespaceLifecycle plugin: the role is sufficient, but the
# namespace is being deleted.
_TERMINATING = "because it is being terminated"
_GRANT = "grant this user create and patch on events in API group events.k8s.io"
_MERGE = "application/merge-patch+json"


class Recorder:
    """Sends the Events of one node.

    Args:
        node_name: The reporting node; empty to send nothing.
        uid_of: Returns a Service's uid, by which ``kubectl`` finds its Events; empty if unknown.
        every_s: Seconds between two requests for one series.
    """

    def __init__(
        self,
        client: ApiClient,
        node_name: str,
        uid_of: Callable[[ServiceKey], str],
        *,
        clock: Callable[[], float] = Clocks.monotonic,
        pause: Pause = pause,
        every_s: float = EVERY_S,
    ) -> None:
        self._client = client
        self._node_name = node_name
        self._uid_of = uid_of
        self._every_s = every_s
        self._clock = clock
        self._pause = pause
        # Events contain the time of day, but changes of the clock mustn't affect when they are due.
        self._offset = Clocks.time() - clock()
        self._correlator = Correlator()
        self._silent_until: dict[str, float] = {}
        """By path, the Unix time of the next attempt to send an Event."""
        self._has_logged_forbidden = False
        self._wake = asyncio.Event()

    def record(self, happening: Happening) -> None:
        """Queue an Event for sending, if this node has a name."""
        if self._node_name:
            self._correlator.note(happening, self._now())
            self._wake.set()

    async def run(self) -> None:
        while True:
            self._wake.clear()
            series = next(self._correlator.due(self._now()), None)
            if series is None:
                await self._until_due()
            elif await self._send(series):
                await self._pause(APART_S)

    async def _until_due(self) -> None:
        wait_s = self._correlator.next_due_s(self._now())
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return

    def _now(self) -> float:
        return self._clock() + self._offset

    async def _send(self, series: Series) -> bool:
        """Send the new occurrences of a series; return whether a request was made."""
        silent_until = self._silent_until.get(path_of(series), 0.0)
        series.not_before = max(self._now() + self._every_s, silent_until)
        if self._now() < silent_until:
            return False
        count, series.asked_at = series.count, self._now()
        try:
            response = await self._ask(series)
        except (TransportError, TimeoutError):
            # The source reports problems with the server; the Event is retried.
            return True
        if response.code < 300:
            series.sent = count
        elif response.code == 409:
            # An earlier request that seemed to fail created the Event, with the count at that time.
            series.sent = max(series.sent, 1)
        elif response.code == 403 and _TERMINATING in cause_of(response):
            series.sent = count
        elif response.code in (401, 403):
            series.not_before = self._forbidden(series, response)
        elif response.code == 404 and series.name:
            # The server deletes Events after an hour, so create the Event again.
            series.name = ""
        elif response.code < 500 and response.code != 429:
            series.sent = count
            fields = {"event": series.happening.reason, "cause": cause_of(response)}
            _log.warning("API server rejected Event %(event)s: %(cause)s", extra=fields)
        return True

    async def _ask(self, series: Series) -> Response:
        path = path_of(series)
        if series.name:
            return await self._client.send(
                "PATCH", join(path, series.name), series_patch(series), content_type=_MERGE
            )
        service = series.happening.service
        uid = self._node_name if service is None else self._uid_of(service)
        event = new_event(series, self._node_name, uid)
        response = await self._client.send("POST", path, event, content_type="application/json")
        # Set the series' name only now: if there is no response, the same Event is sent again, and
        # 409 means that it exists.
        if response.code < 300 or response.code == 409:
            series.name = event["metadata"]["name"]
        return response

    def _forbidden(self, series: Series, response: Response) -> float:
        """Pause a path after a 401 or 403; return the Unix time of the next attempt."""
        now = self._now()
        past = [path for path, until in self._silent_until.items() if until <= now]
        for path in past:
            del self._silent_until[path]
        until = self._silent_until[path_of(series)] = now + FORBIDDEN_S
        # The source reports a 401 with its remedy; permissions don't help against it.
        if response.code == 403 and not self._has_logged_forbidden:
            self._has_logged_forbidden = True
            _log.warning(
                "cannot write Events: %(cause)s",
                extra={"cause": cause_of(response), "remedy": _GRANT},
            )
        return until
