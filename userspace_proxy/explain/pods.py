"""Explains a Service's endpoints by its pods, and by slices that aren't made from pods."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..causes.nodes import listed
from ..facts import Level
from ..facts.units import plural
from ..model import EndpointSlice, Service
from ..model.endpoints import named_pods
from ..model.pods import PodState
from ..model.quoting import shell_command
from ..model.similar import nearest
from ..policy.no_endpoints import selector_text
from .explanation import PathStep

_TOPIC, SLICES = "pods", "slices"
_SHOWN = 10
_WRITES = "kube-controller-manager writes them: see whether it runs, and read its log"
_OR_FAMILY = "; pods without an address of the Service's IP family aren't listed, too"


def judge_pods(
    service: Service,
    targets: Sequence[int | str],
    pods: Sequence[PodState],
    slices: Sequence[EndpointSlice],
) -> list[PathStep]:
    """Return the steps about a Service's pods, and whether its slices list them.

    Args:
        targets: The target ports: numbers, or names of container ports.
        pods: The Service's pods, or if there are none, all of its namespace; and ``named_pods``.
    """
    strays = [*_strays(slices, pods)]
    if not service.selector:
        what = "It has no selector: no pod belongs to it, and its slices are written by others"
        return [PathStep(None if strays else Level.OK, _TOPIC, what), *strays]
    own = [pod for pod in pods if set(service.selector) <= set(pod.labels)]
    outdated = [*_outdated(slices, own), *strays]
    if not own:
        return [_no_pod(service, pods, _gone(slices, pods)), *outdated]
    ready = [pod for pod in own if pod.is_ready]
    details = tuple(
        (Level.ATTENTION, f"{pod.name}: {pod.reason}") for pod in own if not pod.is_ready
    )[:_SHOWN]
    labels = selector_text(service)
    if not ready:
        what = f"The only pod with the labels {labels} is not ready"
        if len(own) > 1:
            what = f"None of the {len(own)} pods with the labels {labels} is ready"
        step = PathStep(Level.TROUBLE, _TOPIC, what, details=details, pod=own[0].name)
        return [step, *outdated]
    what = f"{len(ready)} of {plural(len(own), 'pod')} ready"
    steps = [PathStep(None if outdated else Level.OK, _TOPIC, what, details=details), *outdated]
    steps += _missing_ports([t for t in targets if isinstance(t, str)], own)
    return steps + _other_numbers([t for t in targets if isinstance(t, int)], own)


def foreign_slices(
    service: Service, slices: Iterable[EndpointSlice], *, has_pods: bool = False
) -> list[PathStep]:
    """Return steps about slices that aren't made from pods, if the Service has a selector."""
    steps = []
    for item in slices if service.selector else ():
        found = () if item.is_managed else item.endpoints
        if ips := [one.ip for one in found if not (one.pod and has_pods)]:
            more = f" and {count:,} more" if (count := len(ips) - _SHOWN) > 0 else ""
            come = "comes" if len(ips) == 1 else "come"
            by = f", written by {item.manager}" if item.manager else ""
            what = f"{', '.join(ips[:_SHOWN])}{more} {come} from EndpointSlice {item.key}{by}"
            is_named = not has_pods and any(one.pod for one in found)
            end = "--pods shows whether its pods exist" if is_named else "it names no pod"
            steps.append(PathStep(None, SLICES, f"{what}; {end}"))
    return steps[:_SHOWN]


def _strays(slices: Sequence[EndpointSlice], pods: Iterable[PodState]) -> Iterator[PathStep]:
    """Yield a step for each slice with addresses that the ``named_pods`` don't have."""
    known, names = {(pod.name, ip) for pod in pods for ip in pod.ips}, named_pods(slices)
    for item in slices:
        named = [one for one in item.endpoints if one.pod in names and not item.is_managed]
        if said := [f"{e.ip} (no pod {e.pod} has it)" for e in named if (e.pod, e.ip) not in known]:
            by = f"managed-by: {item.manager}" if item.manager else "no managed-by label"
            what = f"EndpointSlice {item.key} ({by}) lists {listed(said)}"
            delete = ("delete", "endpointslice", "-n", item.key.namespace, item.key.name)
            hint = f"Delete it (`{shell_command('kubectl', *delete)}`), or correct what writes it"
            yield PathStep(Level.ATTENTION, SLICES, what, hint)


def _outdated(slices: Sequence[EndpointSlice], pods: Sequence[PodState]) -> list[PathStep]:
    """Return a step if slices lack ready pods, or if slices made from pods list other pods."""
    as_ready = {one.pod for item in slices for one in item.endpoints if one.ready}
    ready = [pod.name for pod in pods if pod.is_ready]
    unlisted = [name for name in ready if name not in as_ready]
    gone = _gone(slices, pods)
    faults = (
        (unlisted, "ready, and not listed as ready"),
        (gone, "listed, and not among its pods"),
    )
    said = [f"{listed(who)} {'are' if who[1:] else 'is'} {what}" for who, what in faults if who]
    if not said:
        return []
    level = Level.ATTENTION if len(unlisted) < len(ready) else Level.TROUBLE
    what = f"EndpointSlices are out of date: {'; '.join(said)}"
    return [PathStep(level, SLICES, what, _WRITES if gone else f"{_WRITES}{_OR_FAMILY}")]


def _gone(slices: Sequence[EndpointSlice], pods: Sequence[PodState]) -> list[str]:
    """Return the pods in slices that are made from pods, except these pods; sorted by name."""
    managed = (one for item in slices if item.is_managed for one in item.endpoints if one.pod)
    return sorted({one.pod for one in managed}.difference(pod.name for pod in pods))


def _no_pod(service: Service, others: Sequence[PodState], gone: Sequence[str]) -> PathStep:
    """Return the step for a selector that no pod matches, naming a pod with a similar label.

    If pods in the Service's slices are ``gone``, no label is suggested.
    """
    wanted = dict(service.selector)
    labels, namespace = selector_text(service), service.key.namespace
    what = f"No pod in {namespace} has the labels {labels}"
    if gone:
        are = "the pod in its slices is" if len(gone) == 1 else "the pods in its slices are"
        hint = "See why they aren't replaced: the events of their Deployment or StatefulSet"
        return PathStep(Level.TROUBLE, _TOPIC, f"{what}; {are} deleted", hint)
    if not others:
        return PathStep(Level.TROUBLE, _TOPIC, f"{what}; there are no pods in {namespace}")
    pairs = {f"{key}={value}": pod for pod in others for key, value in pod.labels}
    for key, value in wanted.items():
        # Look among labels with the same key first, then among all labels.
        same_key = [pair for pair in pairs if pair.startswith(f"{key}=")]
        for known in (same_key, list(pairs)):
            pair = f"{key}={value}"
            if near := nearest(pair, [other for other in known if other != pair]):
                pod = pairs[near].name
                what = f"{what}; pod {pod} has {near}"
                return PathStep(Level.TROUBLE, _TOPIC, what, f"Did you mean {near}?", pod=pod)
    there = ", ".join(sorted(pairs)[:_SHOWN]) or "none"
    return PathStep(Level.TROUBLE, _TOPIC, f"{what}; the labels there are {there}")


def _missing_ports(target_names: Sequence[str], pods: Sequence[PodState]) -> list[PathStep]:
    names = sorted({name for pod in pods for name in pod.port_names})
    steps = []
    for wanted in target_names:
        lacking = [pod.name for pod in pods if wanted not in pod.port_names]
        if lacking and wanted in names:
            who = plural(len(pods), "pod")
            what = (
                f'{len(lacking)} of {who} lack the port "{wanted}": {", ".join(lacking[:_SHOWN])}'
            )
            hint = "They get no connections for it: name the port in their containers, too"
            steps.append(PathStep(Level.ATTENTION, _TOPIC, what, hint))
        elif wanted not in names:
            have = ", ".join(f'"{name}"' for name in names) or "no named port"
            what = f'targetPort "{wanted}" is no port of the pods\' containers; they have {have}'
            steps.append(
                PathStep(
                    Level.TROUBLE,
                    _TOPIC,
                    what,
                    "Name the port so, or use its number",
                    pod=pods[0].name,
                )
            )
    return steps


def _other_numbers(targets: Sequence[int], pods: Sequence[PodState]) -> list[PathStep]:
    """Return a step for target ports that no container lists, which isn't a failure in itself."""
    have = sorted({number for pod in pods for number in pod.port_numbers})
    missing = [target for target in dict.fromkeys(targets) if target not in have]
    if not have or not missing:
        return []
    shown = ", ".join(map(str, have[:_SHOWN]))
    what = f"targetPort {missing[0]} is no containerPort of its pods; they have {shown}"
    hint = "If the program listens on one of these, set targetPort to it; --probe dials it"
    return [PathStep(Level.ATTENTION, _TOPIC, what, hint)]
