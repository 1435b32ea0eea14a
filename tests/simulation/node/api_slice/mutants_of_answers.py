"""Faults in how answers are taken that the API doesn't allow, or that name a failure."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")

MUTANTS: Mapping[str, Mutant] = {
    "api-any-error-of-a-watch-expires-it": _source(
        "reflector",
        "        if is_expired(code, status):\n            self._expire()\n",
        "        if code:\n            self._expire()\n",
    ),
    "api-line-that-cannot-be-read-is-asked-for-again": _source(
        "reflector",
        "                self._position.watch_expired()\n                return self._invalid(f",
        "                return self._invalid(f",
    ),
    "api-line-that-cannot-be-read-is-no-problem": _source(
        "reflector",
        '                return self._invalid(f"in a watch, {exc}")',
        "                return None",
    ),
    "api-error-of-a-watch-is-no-problem": _source(
        "reflector",
        '        return RequestFailure(f"the API server at {self._client.url} ended a watch: ',
        '        return None if cause else RequestFailure(f"{self._client.url} ended a watch: ',
    ),
    "api-error-of-a-watch-is-passed-over": _source(
        "reflector",
        "                        self._changed()\n"
        "                        return self._error(decode(event.object, WireStatus))",
        "                        self._changed()\n"
        "                        failure = self._error(decode(event.object, WireStatus))\n"
        "                        if failure is None:\n"
        "                            return None\n"
        "                        continue",
    ),
    "api-list-without-a-version-is-taken": _source(
        "reflector",
        "            if not page.resource_version:\n",
        "            if page.resource_version is None and self.is_listed:\n",
    ),
    "api-wrong-list-of-items-is-an-empty-one": _source(
        "list_body",
        '        elif now is _Next.ITEMS and value.rstrip() != b"null":',
        "        elif now is _Next.ITEMS and not value:",
    ),
    "api-event-of-an-older-history-is-applied": _source(
        "reflector",
        "                    if not self._position.advance(metadata.resource_version):",
        "                    self._apply(event, metadata)\n"
        "                    if not self._position.advance(metadata.resource_version):",
    ),
    "api-unknown-event-is-passed-over": _source(
        "reflector",
        'raise FieldError("type", f"{event.type!r} is not a known event type")',
        "return Metadata()",
    ),
    "api-older-event-is-followed-by-another": _source(
        "position",
        "        self._from = _ListFrom.NEWEST\n        return False",
        "        self._from = _ListFrom.NEWEST\n        return True",
    ),
    "api-list-after-an-older-event-is-of-any-state": _source(
        "position",
        "        self._from = _ListFrom.NEWEST\n        return False",
        "        return False",
    ),
    "api-rejected-event-is-sent-again": _source(
        "recorder",
        "        elif response.code < 500 and response.code != 429:\n"
        "            series.sent = count\n",
        "        elif response.code < 500 and response.code != 429:\n",
    ),
    "api-busy-server-rejects-events": _source(
        "recorder",
        "elif response.code < 500 and response.code != 429:",
        "elif response.code < 500:",
    ),
    "api-event-whose-response-was-lost-is-patched": _source(
        "recorder",
        '        response = await self._client.send("POST", path, event, '
        'content_type="application/json")\n',
        '        series.name = event["metadata"]["name"]\n'
        '        response = await self._client.send("POST", path, event, '
        'content_type="application/json")\n'
        '        series.name = ""\n',
    ),
}
