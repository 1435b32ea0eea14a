"""Scales a workload from zero to one replica, and from one to zero.

    from zero: read scale ──▶ its Services may scale it ──▶ update the version that was read
    to zero: read scale ──▶ its Services may scale it ──▶ no HorizontalPodAutoscaler and no
    PodDisruptionBudget requires a replica ──▶ all nodes agree ──▶ update the version that was read

Rule 1: only the subresource ``scale`` is written, and only 0 → 1 and 1 → 0. Any other number of
replicas is the decision of another user.
Rule 2: an update names the version that was read before nodes were asked. If several nodes see
demand at the same time, only one of them scales, and the server refuses an update if the workload
has been scaled since.
Rule 3: an object that can't be read counts as requiring a replica.
Rule 4: an update to zero without a response may have been applied. It is sent again, because only
one update of a version succeeds; unless that shows the result, the workload counts as scaled, so
that no client dials a pod that may be terminating. The same applies to a gateway's errors: the
server may still process the update.
Rule 5: after two other errors of the server, the scale is read to find the result.
Rule 6: the labels in the scale that was read decide whether a Service may scale it (``May``).

Source: autoscaling/v1 Scale.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Mapping
from typing import Any

from ...errors import SourceError
from ...log_fields import FieldLogger
from ...model import Workload
from ...model.wire import FieldError, WireAutoscaler, WireBudget, WireObject, convert
from ..base import Agree, Labels, May, ScaleDown
from .api_paths import join
from .client import ApiClient
from .replicas_wanted import autoscaler_of, budget_of, labels_of
from .responses import Response, TransportError, cause_of

_log = FieldLogger("userspace_proxy.sources")

_ANSWER_S = 5.0
# The time limit for repeating the update or reading its result: acknowledgements expire soon.
_AGAIN_S = 2.0
_SILENT = "no answer in time"
# Errors of a gateway that may have passed the update on.
_NO_RESPONSE = (502, 504)
# Exceptions from parsing a malformed response.
_INVALID = (FieldError, ValueError, TypeError, AttributeError, KeyError)
_AUTOSCALERS = ("autoscaling/v2", "horizontalpodautoscalers")
_BUDGETS = ("policy/v1", "poddisruptionbudgets")
_UPDATE = "get and update"


async def scale_from_zero(client: ApiClient, namespace: str, workload: Workload, may: May) -> str:
    """Scale from zero to one replica if ``may`` permits; return the result of ``Source.wake``."""
    path, resource = _scale_of(namespace, workload)
    try:
        response = await client.get(path, {})
        if response.code != 200:
            cause = _refused(response, resource, namespace)
            return f"cannot read the scale of {workload}: {cause}"
        scale = json.loads(response.body)
        if (reason := may(_labels(scale))) is not None:
            return reason
        if _replicas(scale) > 0:
            return ""
        response = await _put(client, path, scale, replicas=1)
    except (TransportError, TimeoutError) as exc:
        return f"cannot scale {workload}: {exc}"
    except _INVALID:
        return f"cannot read the scale of {workload}: the response isn't a Scale"
    if response.code == 409:
        # Another node has probably scaled the workload; if not, the next attempt will.
        return ""
    if response.code != 200:
        return f"cannot scale {workload}: {_refused(response, resource, namespace)}"
    fields = {"workload": str(workload), "namespace": namespace}
    _log.info("scaled %(workload)s in %(namespace)s from 0 to 1: clients are waiting", extra=fields)
    return ""


async def scale_to_zero(
    client: ApiClient, namespace: str, workload: Workload, may: May, agree: Agree
) -> ScaleDown:
    """Scale one replica to zero if ``may``, ``agree`` and all objects permit; return the result."""
    path, resource = _scale_of(namespace, workload)
    try:
        async with asyncio.timeout(_ANSWER_S):
            scale = await _get(client, path, resource, namespace)
            if _replicas(scale) != 1:
                return ScaleDown()
            if (refused := may(_labels(scale))) is not None:
                return ScaleDown(reason=refused)
            reason = await _other_wish(client, namespace, workload, scale)
    except (TransportError, TimeoutError, SourceError) as exc:
        return ScaleDown(reason=f"cannot scale {workload} to zero: {str(exc) or _SILENT}")
    except _INVALID:
        return ScaleDown(reason=f"cannot scale {workload} to zero: invalid response")
    if reason:
        return ScaleDown(reason=f"{workload} stays at one replica: {reason}")
    if not await agree():
        return ScaleDown()
    return await _put_asleep(client, namespace, workload, scale)


async def _put_asleep(
    client: ApiClient, namespace: str, workload: Workload, scale: Mapping[str, Any]
) -> ScaleDown:
    path, resource = _scale_of(namespace, workload)
    fields = {"workload": str(workload), "namespace": namespace}
    was_sent = may_be_made = False
    # The nodes' acknowledgements expire, so the attempts must end soon.
    for within_s in (_ANSWER_S, _AGAIN_S):
        try:
            async with asyncio.timeout(within_s):
                response = await _put(client, path, scale, replicas=0)
                if response.code == 409:
                    # aiohttp may have sent the update twice, and the first one may have succeeded.
                    present = await _get(client, path, resource, namespace)
                    return ScaleDown(is_asleep=not _replicas(present))
        except (TransportError, TimeoutError, SourceError, *_INVALID) as exc:
            fields["cause"] = str(exc) or _SILENT
            may_be_made = True
        else:
            if response.code == 200:
                text = "scaled %(workload)s in %(namespace)s from 1 to 0: no client uses it"
                _log.info(text, extra=fields)
                return ScaleDown(is_asleep=True)
            fields["cause"] = cause = _refused(response, resource, namespace)
            if response.code < 500 and not was_sent:
                return ScaleDown(reason=f"cannot scale {workload} to zero: {cause}")
            may_be_made = may_be_made or response.code in _NO_RESPONSE
        was_sent = True
    if not may_be_made:
        with contextlib.suppress(TransportError, TimeoutError, SourceError, *_INVALID):
            async with asyncio.timeout(_AGAIN_S):
                present = await _get(client, path, resource, namespace)
                if _version(present) == _version(scale) and _replicas(present) == 1:
                    cause = fields["cause"]
                    return ScaleDown(reason=f"cannot scale {workload} to zero: {cause}")
                return ScaleDown(is_asleep=not _replicas(present))
    _log.warning(
        "%(workload)s in %(namespace)s may have been scaled to zero: %(cause)s", extra=fields
    )
    return ScaleDown(is_asleep=True)


async def _other_wish(
    client: ApiClient, namespace: str, workload: Workload, scale: Mapping[str, Any]
) -> str:
    """Describe the object that requires a replica; empty if no object does."""
    autoscalers = await _list(client, namespace, *_AUTOSCALERS, WireAutoscaler)
    if why := autoscaler_of(workload, autoscalers):
        return why
    return budget_of(_labels(scale), await _list(client, namespace, *_BUDGETS, WireBudget))


def _scale_of(namespace: str, workload: Workload) -> tuple[str, str]:
    """Return the path of a workload's scale, and the resource's name in roles."""
    plural = f"{workload.kind}s"
    path = join("/apis/apps/v1/namespaces", namespace, plural, workload.name, "scale")
    return path, f"{plural}/scale"


async def _put(
    client: ApiClient, path: str, scale: Mapping[str, Any], *, replicas: int
) -> Response:
    wanted = {**scale, "spec": {"replicas": replicas}}
    return await client.send("PUT", path, wanted, content_type="application/json")


def _replicas(scale: Mapping[str, Any]) -> int:
    replicas: int = scale.get("spec", {}).get("replicas", 0)
    return replicas


def _labels(scale: Mapping[str, Any]) -> Labels:
    """Return labels that all pods of a workload have."""
    return labels_of(str(scale.get("status", {}).get("selector", "")))


def _version(scale: Mapping[str, Any]) -> str:
    version: str = scale["metadata"]["resourceVersion"]
    return version


async def _list(
    client: ApiClient, namespace: str, version: str, plural: str, wire: type[WireObject]
) -> list[WireObject]:
    path = join(f"/apis/{version}/namespaces", namespace, plural)
    items = (await _get(client, path, plural, namespace, "list"))["items"]
    return [convert(item, wire) for item in items or ()]


async def _get(
    client: ApiClient, path: str, resource: str, namespace: str, verbs: str = _UPDATE
) -> Any:
    response = await client.get(path, {})
    if response.code != 200:
        raise SourceError(_refused(response, resource, namespace, verbs))
    return json.loads(response.body)


def _refused(response: Response, resource: str, namespace: str, verbs: str = _UPDATE) -> str:
    hint = ""
    if response.code == 403:
        hint = f" (allow this user to {verbs} {resource} in namespace {namespace})"
    return cause_of(response) + hint
