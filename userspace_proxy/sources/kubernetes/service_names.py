"""Reads the names of Services from an API server, once."""

from __future__ import annotations

from ...errors import SourceError
from ...model import ServiceKey
from ...model.wire import FieldError, WireHead, WirePage, decode
from .client import ApiClient
from .credentials import Credentials
from .kubeconfig_files import Kubeconfig
from .one_service import asked_once, list_refused
from .resources import SERVICES, inside
from .responses import invalid


async def read_service_names(
    kubeconfig: str | Kubeconfig, master: str, *, namespace: str, within_s: float
) -> list[ServiceKey]:
    """Return the Services of a namespace, or of all for an empty one.

    Args: kubeconfig, master: As for KubernetesSource.
        within_s: How long the server may take.

    Raises:
        SourceError: The server doesn't respond, or doesn't permit it.
    """
    client = ApiClient(Credentials(kubeconfig=kubeconfig, master=master))
    async with asked_once(client, within_s):
        response = await client.get(inside(SERVICES, namespace).path, {})
    if response.code != 200:
        raise SourceError(list_refused(client, SERVICES.name, response))
    try:
        items = decode(response.body, WirePage).items or []
        heads = [decode(item, WireHead).metadata for item in items]
    except FieldError as exc:
        raise SourceError(invalid(client.url, SERVICES.name, str(exc)).text) from exc
    return [ServiceKey(head.namespace or "", head.name or "") for head in heads]
