"""Tests of reading a user's rights by the API server's access reviews."""

from __future__ import annotations

import pytest

from userspace_proxy.errors import SourceError
from userspace_proxy.sources.kubernetes.client import ApiClient
from userspace_proxy.sources.kubernetes.credentials import Credentials
from userspace_proxy.sources.kubernetes.responses import Response
from userspace_proxy_kubectl.user_rights import check_access, grant_command, lacks_rights


@pytest.fixture
async def client(api):
    """A client that isn't open yet."""
    client = ApiClient(Credentials(master=api.url))
    yield client
    await client.close()


async def problem_of(client, namespace="shop", within_s=30.0):
    with pytest.raises(SourceError) as caught:
        await check_access(client, namespace, within_s=within_s)
    return str(caught.value)


async def test_the_access_check_accepts_a_user_with_all_permissions(client):
    await check_access(client, "shop", within_s=30)


async def test_the_access_check_lists_all_missing_permissions(api, client):
    api.denied |= {"watch services", "create pods/portforward"}
    assert await problem_of(client) == (
        f"the API server at {api.url} doesn't allow this user to watch services, create "
        "pods/portforward in namespace shop (have a Role with these rights granted to the user of "
        "the kubeconfig)"
    )


async def test_a_user_limited_to_one_namespace_gets_a_hint_on_how_to_select_it(api, client):
    api.denied.add("list services")
    assert (await problem_of(client, "")).endswith(
        "to list services in all namespaces (have a Role with these rights granted to the user of "
        "the kubeconfig; or name Services, or one namespace with --namespace)"
    )


async def test_a_server_without_authorization_permits_everything(api, client):
    api.refuse("selfsubjectaccessreviews", 404, times=6)
    await check_access(client, "shop", within_s=30)


async def test_invalid_credentials_are_reported(api, client):
    api.token = "secret"
    assert "rejected the credentials: Unauthorized" in await problem_of(client)


async def test_an_unreachable_or_silent_server_is_reported(api, client):
    assert await problem_of(client, within_s=0) == (
        f"cannot reach the API server at {api.url}: no answer within 0 s"
    )
    await client.close()
    await api.stop()
    assert await problem_of(client) == (
        f"cannot reach the API server at {api.url}: Connection refused"
    )


@pytest.mark.parametrize("body", [b"", b"[]", b'{"status": null}', b"{}"])
async def test_an_invalid_response_is_reported(client, monkeypatch, body):
    async def send(*_args, **_more):
        return Response(201, body)

    monkeypatch.setattr(client, "send", send)
    assert (await problem_of(client)).endswith("for an access review")


BINDING = "kubectl -n kube-system create rolebinding userspace-proxy-view-"
ROLE = "--role=userspace-proxy-view"


@pytest.mark.parametrize(
    ("user", "command"),
    [
        pytest.param("alice", f"{BINDING}alice {ROLE} --user=alice", id="user"),
        pytest.param("", f"{BINDING}USER {ROLE} --user=USER", id="unknown"),
        pytest.param(
            "system:serviceaccount:ci:reader",
            f"{BINDING}ci-reader {ROLE} --serviceaccount=ci:reader",
            id="account",
        ),
        pytest.param(
            "oidc:a/b; rm", f"{BINDING}oidc-a-b--rm {ROLE} '--user=oidc:a/b; rm'", id="quoted"
        ),
    ],
)
def test_the_suggested_command_names_and_quotes_the_user(user, command):
    assert grant_command(user, "kube-system") == command


async def test_the_error_names_the_user_reported_by_the_server(api, client):
    api.user = "alice"
    await client.open()
    error = await lacks_rights(client, "list pods", "net", "pods is\nforbidden")
    assert error.message == (
        f"the API server at {api.url} doesn't allow alice to list pods in namespace net: "
        "pods is forbidden"
    )
    assert error.hint.endswith(" --user=alice")


async def test_the_error_is_reported_if_the_server_does_not_reveal_the_user(api, client):
    api.refuse("selfsubjectreviews", 404)
    await client.open()
    error = await lacks_rights(client, "list pods", "net", "no")
    assert "doesn't allow this user to list pods" in error.message
