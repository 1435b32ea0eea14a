"""The command that shows more of a cause than its sentence: of kubectl, or on the node."""

from __future__ import annotations

from ..model import ServiceKey, ip_of
from ..model.quoting import shell_command, shell_word
from .cause import Cause, CauseCode
from .say import object_of

_POD_AT = "get pods -A -o wide --field-selector status.podIP={ip}"


def kubectl_words(cause: Cause, service: str, pod: str = "") -> str:
    """Return the words after ``kubectl`` of the command, quoted; empty if none shows more.

    Args:
        service: The Service that has the cause, ``namespace/name``.
        pod: The name of the pod that was found to be the reason; empty if none was.
    """
    about, row, traits = object_of(cause), cause.row, cause.code.traits
    words = row.kubectl or (CauseCode.NO_SLICE.traits.kubectl if row.is_of_slices else "")
    words = words or (traits.kubectl_of_pod if pod else "") or traits.kubectl
    if not words and traits.is_of_endpoint and ip_of(about):
        words = _POD_AT
    namespace, name = ServiceKey.read(service)
    places = {"namespace": namespace, "name": name, "ip": ip_of(about), "pod": pod}
    values = {**dict(cause.params), **places}
    return words.format_map({place: shell_word(value) for place, value in values.items()})


def on_node(cause: Cause) -> str:
    """Return the command on the node; empty if none shows more."""
    if chain := cause.get("chain"):
        return shell_command("nft", "list", "chain", *str(chain).split())
    return cause.code.traits.on_node
