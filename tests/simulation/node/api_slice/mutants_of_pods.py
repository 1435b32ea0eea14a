"""Faults in endpoints that are derived from Pods."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_cluster = partial(Mutant, "from_pods", package="cluster")
_model = partial(Mutant, "pod_endpoints", package="model")

MUTANTS: Mapping[str, Mutant] = {
    "api-pod-that-is-gone-stays": _cluster(
        "            _discard(self._labelled, (key.namespace, *label), key)\n"
        "        self._touch_services_of(pod)",
        "            _discard(self._labelled, (key.namespace, *label), key)",
    ),
    "api-service-that-changes-keeps-its-endpoints": _cluster(
        "            _discard(self._selecting, (key.namespace, *service.selector[0]), key)\n"
        "        self._touched.add(key)",
        "            _discard(self._selecting, (key.namespace, *service.selector[0]), key)",
    ),
    "api-pods-of-a-part-of-the-selector": _cluster(
        "[pod for pod in pods if pod.labels.issuperset(service.selector)]", "pods"
    ),
    "api-earlier-endpoints-stay": _cluster(
        "            self._in_store[key] = {item.key for item in state.slices}\n", ""
    ),
    "api-service-that-cannot-be-read-loses-its-endpoints": _cluster(
        "for key in self._touched - self._unread", "for key in self._touched"
    ),
    "api-slices-of-pods-that-left-stay": _cluster(
        "            for gone in self._in_store.pop(key, set()) - slices.keys():",
        "            for gone in self._in_store.pop(key, set()) - self._written.keys():\n"
        "                if slices:\n"
        "                    continue",
    ),
    "api-pod-that-has-ended-is-used": _model("if pod.has_ended:", "if pod.is_terminating:"),
    "api-pod-that-leaves-is-ready": _model(
        "(pod.is_ready and not pod.is_terminating)", "pod.is_ready"
    ),
    "api-family-that-is-not-wanted-is-used": _model(
        "            if family in selection.families:\n", "            if family:\n"
    ),
    "api-names-of-ports-are-of-any-protocol": _model(
        "pod.ports.get((target, protocol), 0)",
        "next((n for (name, _), n in pod.ports.items() if name == target), 0)",
    ),
    "api-moved-port-of-another-protocol": _model(
        "pod.listens_at.get(PodPort(number, protocol), number)",
        "next((n for p, n in pod.listens_at.items() if p.number == number), number)",
    ),
    "api-pods-are-not-waited-for": Mutant(
        "source",
        "        self._required = len(resources)\n",
        "        self._required = 2\n",
        package="sources.kubernetes",
    ),
}
