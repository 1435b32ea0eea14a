"""The error that a right is missing has the command that grants it."""

import pytest

from userspace_proxy_kubectl.nodes.rights import grant_command, lacks_rights

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
def test_the_command_can_be_pasted(user, command):
    assert grant_command(user, "kube-system") == command


async def test_the_user_is_the_one_that_the_server_names(api, client):
    api.user = "alice"
    error = await lacks_rights(client, "list pods", "net", "pods is\nforbidden")
    assert error.message == (
        f"the API server at {api.url} doesn't allow alice to list pods in namespace net: "
        "pods is forbidden"
    )
    assert error.hint.endswith(" --user=alice")


async def test_a_server_that_names_no_user_is_no_problem(api, client):
    api.refuse("selfsubjectreviews", 404)
    error = await lacks_rights(client, "list pods", "net", "no")
    assert "doesn't allow this user to list pods" in error.message
