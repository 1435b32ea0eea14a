"""Texts of error responses, and of errors without a response."""

from __future__ import annotations

import json
import math

import pytest

from userspace_proxy.model.wire import WireStatus
from userspace_proxy.sources.kubernetes.reflector import CAP_S, RETRY_AFTER_MAX_S
from userspace_proxy.sources.kubernetes.responses import (
    RequestFailure,
    Response,
    TransportError,
    invalid,
    is_expired,
    read_status,
    rejected,
    unreachable,
)

URL = "https://10.0.0.1:6443"


def status(message: str) -> bytes:
    return json.dumps({"kind": "Status", "message": message}).encode()


@pytest.mark.parametrize(
    ("code", "body", "words"),
    [
        (
            401,
            status("Unauthorized"),
            f"the API server at {URL} rejected the credentials: Unauthorized (check the token in "
            f"/t)",
        ),
        (
            403,
            status('services is forbidden: User "alice"\n cannot list'),
            f"the API server at {URL} refuses to list services: services is forbidden: "
            'User "alice" cannot list '
            "(allow this user to get, list and watch services, endpointslices and nodes)",
        ),
        (
            404,
            b"404 page not found\n",
            f"the server at {URL} can't list services: 404 page not found "
            "(check its address and version)",
        ),
        (429, status("slow down"), f"the API server at {URL} is busy: slow down"),
        (
            502,
            b"<html>Bad Gateway</html>",
            f"the API server at {URL} can't list services: HTTP status 502",
        ),
        (
            400,
            b"Client sent an HTTP request to an HTTPS server.\n",
            f"the API server at {URL} can't list services: "
            "Client sent an HTTP request to an HTTPS server.",
        ),
        (500, b"{half", f"the API server at {URL} can't list services: HTTP status 500"),
    ],
)
def test_a_rejection_contains_the_servers_message_if_any_and_a_remedy_if_known(code, body, words):
    response = Response(code, body, retry_after_s=7)
    found = rejected(URL, "list", "services", response, credentials="the token in /t")
    assert found.text == words


@pytest.mark.parametrize(
    ("code", "body", "most_s"),
    [
        (503, status("etcd is gone"), RETRY_AFTER_MAX_S),
        (500, status("etcd is gone"), RETRY_AFTER_MAX_S),
        (429, status("busy"), RETRY_AFTER_MAX_S),
        (429, b"Too many requests, please try again later.", RETRY_AFTER_MAX_S),
        (503, b"<html>no server is available</html>", CAP_S),
        (503, b"", CAP_S),
        (503, b'{"message": "no upstream", "code": 503}', CAP_S),
        (502, b"Bad Gateway", CAP_S),
        (403, b"<html>sign in</html>", CAP_S),
    ],
)
@pytest.mark.parametrize("asked_s", [0.0, 2.0, 86400.0, math.inf])
def test_only_the_api_server_may_request_a_long_delay(code, body, most_s, asked_s):
    """Source: issue 74."""
    response = Response(code, body, retry_after_s=asked_s)
    found = rejected(URL, "list", "services", response, credentials="the token in /t")
    assert min(found.retry_after_s, RETRY_AFTER_MAX_S) == min(asked_s, most_s)


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        pytest.param(410, WireStatus(), True, id="gone"),
        pytest.param(200, WireStatus(reason="Expired"), True, id="reason"),
        pytest.param(504, WireStatus(message="Too large resource version: 9"), True, id="restored"),
        pytest.param(504, WireStatus(message="timeout"), False, id="timeout"),
        pytest.param(500, WireStatus(reason="InternalError"), False, id="internal"),
    ],
)
def test_only_a_response_about_an_unavailable_revision_counts_as_expired(code, status, expected):
    assert is_expired(code, status) is expected


def test_a_response_body_without_a_status_is_read_as_an_empty_status():
    assert read_status(b"<html>") == read_status(b"{}") == WireStatus()


def test_unreachable_servers_and_invalid_responses_are_named_in_the_error():
    error = TransportError("Connection refused")
    assert unreachable(URL, error) == RequestFailure(
        f"cannot reach the API server at {URL}: Connection refused"
    )
    assert invalid(URL, "services", "not JSON") == RequestFailure(
        f"invalid response from {URL} for services: not JSON"
    )
