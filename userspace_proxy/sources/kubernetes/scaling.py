"""Scales a workload from zero to one replica.

Rule 1: only the subresource ``scale`` is read and written, and only from 0 to 1.
Rule 2: of several nodes that see demand at once, one scales: an update names the version that was
read, and the server refuses those that come second.
"""

from __future__ import annotations

import json

from ...log_fields import FieldLogger
from ...model import Workload, WorkloadKind
from .api_paths import join
from .client import ApiClient
from .responses import Response, TransportError, cause_of

_log = FieldLogger("userspace_proxy.sources")

_PLURALS = {
    WorkloadKind.DEPLOYMENT: "deployments",
    WorkloadKind.STATEFUL_SET: "statefulsets",
}


async def scale_from_zero(client: ApiClient, namespace: str, workload: Workload) -> str:
    """Scale to one replica, if there are none; return why that failed, or an empty text.

    Source: autoscaling/v1 Scale.
    """
    plural = _PLURALS[workload.kind]
    path = join("/apis/apps/v1/namespaces", namespace, plural, workload.name, "scale")
    try:
        response = await client.get(path, {})
        if response.code != 200:
            return _failure("read the scale of", namespace, workload, response)
        scale = json.loads(response.body)
        if scale.get("spec", {}).get("replicas", 0) > 0:
            return ""
        scale["spec"] = {"replicas": 1}
        response = await client.send("PUT", path, scale, content_type="application/json")
    except (TransportError, TimeoutError) as exc:
        return f"cannot scale {workload}: {exc}"
    except (ValueError, TypeError, AttributeError):
        return f"cannot read the scale of {workload}: the response isn't a Scale"
    if response.code == 409:
        # Somewhere else it was scaled meanwhile; if it wasn't, the next attempt does it.
        return ""
    if response.code != 200:
        return _failure("scale", namespace, workload, response)
    fields = {"workload": str(workload), "namespace": namespace}
    _log.info("scaled %(namespace)s %(workload)s from 0 to 1: clients wait for it", extra=fields)
    return ""


def _failure(what: str, namespace: str, workload: Workload, response: Response) -> str:
    hint = ""
    if response.code == 403:
        plural = _PLURALS[workload.kind]
        hint = f" (allow this user to get and update {plural}/scale in namespace {namespace})"
    return f"cannot {what} {workload}: {cause_of(response)}{hint}"
