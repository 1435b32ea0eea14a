"""Mistakes in what is told, counted, ordered and asked again, planted to measure the simulation."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_source = partial(Mutant, package="sources.kubernetes")
_cluster = partial(Mutant, package="cluster")

MUTANTS: Mapping[str, Mutant] = {
    "api-event-of-a-failed-request-is-lost": _source(
        "recorder",
        "            # The source reports what is wrong with the server; this is retried.\n",
        "            series.sent = count\n",
    ),
    "api-event-without-a-uid": _source(
        "recorder",
        "uid = self._node_name if service is None else self._uid_of(service)",
        'uid = self._node_name if service is None else ""',
    ),
    "api-count-of-a-series-is-what-was-sent": _source(
        "events",
        '{"series": {"count": series.count, "last',
        '{"series": {"count": max(1, series.sent), "last',
    ),
    "api-addresses-stay-until-they-are-wanted": _source(
        "node_addresses",
        "        self._is_decided.set()\n        if is_wanted:\n",
        "        if is_wanted:\n            self._is_decided.set()\n",
    ),
    "api-age-begins-anew-with-another-cause": _source(
        "reflector", "        if not self.problem:\n", "        if problem != self.problem:\n"
    ),
    "api-only-a-busy-server-is-waited-for": _source(
        "responses",
        "min(retry_after_s, OTHERS_RETRY_AFTER_MAX_S)",
        "0.0",
    ),
    "api-slices-in-any-order": _cluster(
        "store", "slices[k] for k in sorted(slices)", "slices[k] for k in slices"
    ),
    "api-series-that-begins-anew-is-sent-at-once": _source(
        "events",
        "series.not_before, series.asked_at = known.not_before, known.asked_at",
        "series.asked_at = known.asked_at",
    ),
    "api-series-that-begins-anew-gives-up-its-place": _source(
        "events",
        "series.not_before, series.asked_at = known.not_before, known.asked_at",
        "series.not_before = known.not_before",
    ),
    "api-labels-that-a-pod-had-stay": _cluster(
        "from_pods",
        "        self.delete_pod(pod.key)\n        self._pods[pod.key] = pod",
        "        self._pods[pod.key] = pod",
    ),
    "api-slice-of-another-service-is-lost": _cluster(
        "from_pods",
        "            for gone in self._in_store.pop(key, set()) - slices.keys():\n"
        "                self._store.delete_slice(gone)\n"
        "        for key, slices in wanted.items():\n"
        "            for item in slices.values():\n"
        "                self._store.put_slice(item)\n",
        "            for item in slices.values():\n"
        "                self._store.put_slice(item)\n"
        "        for key, slices in wanted.items():\n"
        "            for gone in self._in_store.pop(key, set()) - slices.keys():\n"
        "                self._store.delete_slice(gone)\n",
    ),
    "api-waits-without-jitter": _source("reflector", "jitter=self._rng.random()", "jitter=0.0"),
}
