"""Rows of causes for endpoints by name: a name that isn't looked up, or resolves to nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..model.annotations import DOMAIN
from .cause import CauseCode, CauseRow, P, cause

_ASK = "Ask the DNS servers of /etc/resolv.conf on the node: dig {name}"


@cause(
    CauseCode.PORT_NAME_MISSING,
    about="{port}",
    hint=f"Write {{port}}=HOST:PORT in the annotation {DOMAIN}endpoints, or list the port in the "
    "EndpointSlice",
)
def no_name_for_port(port: str) -> str:
    """The Service has endpoints by name, but only for other ports."""
    return f'no endpoint by name is for its port "{port}"'


def _of_name(code: CauseCode, **columns: Any) -> Callable[[Callable[P, str]], CauseRow[P]]:
    """Return a decorator like :func:`cause`, for causes shared by all Services that use a name."""
    return cause(code, about="{name}", shared=("name",), **columns)


def _suffixes_hint(name: str) -> str:
    return (
        "Endpoints by name are for names that the operator of the proxy has allowed: "
        f"--allow-endpoint-names lists suffixes, as {name.partition('.')[2] or name}"
    )


@_of_name(CauseCode.NAME_NOT_ALLOWED, hint=_suffixes_hint)
def name_not_allowed(name: str) -> str:
    """The operator hasn't allowed the name."""
    return f"{name} is not looked up: --allow-endpoint-names has no suffix of it"


@_of_name(CauseCode.NAME_NOT_ALLOWED, hint="Names must not lead to pods: set --cluster-cidr")
def networks_unknown(name: str) -> str:
    """The pod networks are unknown, so whether the name leads to a pod can't be decided."""
    return f"{name} is not looked up: which addresses are those of pods is unknown"


@_of_name(
    CauseCode.NAME_NOT_ALLOWED,
    hint="Names must not lead to Nodes: let the proxy's account list nodes; its log has what "
    "failed",
)
def nodes_unknown(name: str) -> str:
    """The nodes' addresses are unknown, so whether the name leads to a node can't be decided."""
    return f"{name} is not looked up: which addresses are those of Nodes is unknown"


@cause(
    CauseCode.NAME_NOT_ALLOWED,
    about="{name}",
    hint="Remove names, from this Service or from others",
)
def too_many_names(name: str, of_service: int, uses: int, of_namespace: int, of_node: int) -> str:
    """The name exceeds a limit on names."""
    return (
        f"{name} is not looked up: a Service may have {of_service} names ({uses} over all its "
        f"slices), the Services of a namespace {of_namespace}, and all Services {of_node:,}, in "
        "equal shares of namespaces"
    )


@_of_name(
    CauseCode.NAME_UNRESOLVED,
    hint="The running proxy looks it up, by the DNS servers of its node",
)
def not_looked_up_yet(name: str) -> str:
    """No DNS server has answered so far."""
    return f"{name} has not been looked up yet"


@_of_name(CauseCode.NAME_UNRESOLVED, hint=_ASK)
def name_unresolved(name: str, why: str) -> str:
    """DNS has no address for the name, or doesn't answer."""
    return f"no address of {name} is known: {why}"


@_of_name(CauseCode.NAME_UNRESOLVED, hint=f"They are used for an hour. {_ASK}")
def name_stale(name: str, why: str) -> str:
    """DNS no longer has an address, or doesn't answer; the last known addresses are used."""
    return f"{name} no longer resolves, its last addresses are used: {why}"


@_of_name(
    CauseCode.ENDPOINT_NOT_ALLOWED,
    hint="A name may lead only to addresses outside this node and the cluster: see "
    "docs/services.md",
)
def name_leads_astray(name: str, where: str) -> str:
    """The name resolves to an address that must not be dialled."""
    return f"{name} leads to {where}: it is not dialled"


@cause(
    CauseCode.NAME_UNRESOLVED,
    about="{name}",
    hint="The Service has an {family} address, and the name has none",
    shared=("name", "family"),
)
def no_address_of_family(name: str, family: str) -> str:
    """The name has only addresses of the other family."""
    return f"{name} has no {family} address"
