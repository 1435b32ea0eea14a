"""Parses requests to an API server, and describes their refusals, without state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from userspace_proxy_testing.fakes.api_objects import ObjectFilter


class Target(NamedTuple):
    """The object, or the kind of objects, that a path names."""

    resource: str
    namespace: str = ""
    name: str = ""
    part: str = ""
    """A subresource, such as ``scale``."""


def target_of(path: str) -> Target:
    """Return the target of a path."""
    _root, *rest = path.strip("/").split("/")
    rest = rest[1:] if _root == "api" else rest[2:]
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2:
        _, namespace, *rest = rest
    resource, name, part = (*rest, "", "")[:3]
    return Target(resource, namespace, name, part)


def filter_of(target: Target, query: Mapping[str, str]) -> ObjectFilter:
    """Return the filter of a list or a watch."""
    labels = [pair.partition("=") for pair in query.get("labelSelector", "").split(",")]
    return ObjectFilter(
        target.resource,
        query.get("fieldSelector", "").removeprefix("metadata.name="),
        target.namespace,
        tuple((name, value) for name, _, value in labels if name),
    )


class Refusal(NamedTuple):
    """A refusal of requests until a time."""

    until: float
    code: int
    resource: str
    """The refused resource; empty for all."""
    retry_after_s: float
    message: str

    @property
    def text(self) -> bytes:
        """The body: a Status, or the text of a proxy in front of the server."""
        if self.code in (502, 503) and not self.message:
            return b"<html><body>Bad Gateway</body></html>"
        message = self.message or f"refused with {self.code}"
        return json.dumps(status(self.code, "Refused", message)[1]).encode()


def status(code: int, reason: str, message: str) -> tuple[int, dict[str, Any]]:
    """Return a status code, and a Status object with the reason."""
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return code, {**body, "message": message}
