"""Checks a kubeconfig before use, so that errors have a line and a hint.

kubernetes-asyncio, which reads it afterwards, responds to a missing file, a missing context or a
cluster without a server with a warning, an AssertionError or a TypeError.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import InputError, SourceError

if TYPE_CHECKING:
    from ...model.document import Document

_HINT = "give --kubeconfig a file that kubectl works with"


class CurrentContext(NamedTuple):
    """What a kubeconfig's current context names."""

    cluster: dict[str, Any]
    namespace: str
    """Empty: none, which means ``default``."""


def check_kubeconfig(path: str) -> CurrentContext:
    """Check that a kubeconfig names a server, and return its current context.

    Raises:
        SourceError: It doesn't; the message contains the line in the file.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8")
    except OSError as exc:
        raise SourceError(f"cannot read kubeconfig {path}: {exc.strerror}", hint=_HINT) from exc
    except UnicodeDecodeError as exc:
        raise SourceError(f"cannot read kubeconfig {path}: not UTF-8", hint=_HINT) from exc
    # A pod's own agent needs no YAML.
    from ...model.document import parse_documents

    try:
        documents = parse_documents(text, place=path)
    except InputError as exc:
        raise SourceError(f"cannot use kubeconfig {exc.message}", hint=exc.hint or _HINT) from exc
    if len(documents) != 1:
        raise SourceError(
            f"cannot use kubeconfig {path}: it has {len(documents)} documents instead of one",
            hint=_HINT,
        )
    return _check_server(documents[0])


def _check_server(document: Document) -> CurrentContext:
    config = document.value
    if not isinstance(config, dict):
        raise _wrong(document, "", "it is not a mapping")
    name = config.get("current-context")
    if not name:
        raise _wrong(document, "current-context", "is missing")
    context, path = _named(document, "contexts", name, "current-context")
    user, namespace = (_part(context, "context").get(key) for key in ("user", "namespace"))
    if user:
        _named(document, "users", user, f"{path}.context.user")
    cluster_name = _part(context, "context").get("cluster")
    if not cluster_name:
        raise _wrong(document, f"{path}.context.cluster", "is missing")
    cluster, path = _named(document, "clusters", cluster_name, f"{path}.context.cluster")
    server = _part(cluster, "cluster").get("server")
    if not server:
        raise _wrong(document, f"{path}.cluster.server", "is missing")
    if not isinstance(server, str) or not server.startswith(("https://", "http://")):
        raise _wrong(document, f"{path}.cluster.server", f"{server!r} is not an http(s) URL")
    return CurrentContext(_part(cluster, "cluster"), str(namespace or ""))


def _named(document: Document, list_: str, name: Any, named_by: str) -> tuple[Any, str]:
    """Return the item of a list that has a name, and its path."""
    items = document.value.get(list_)
    for i, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, dict) and item.get("name") == name:
            return item, f"{list_}[{i}]"
    raise _wrong(document, named_by, f"{name!r} is not among {list_}")


def _part(item: Any, name: str) -> dict[str, Any]:
    value = item.get(name)
    return value if isinstance(value, dict) else {}


def _wrong(document: Document, path: str, problem: str) -> SourceError:
    text = f"{path}: {problem}" if path else problem
    place = f"{document.place}:{document.line_of(path)}"
    return SourceError(f"cannot use kubeconfig {place}: {text}", hint=_HINT)
