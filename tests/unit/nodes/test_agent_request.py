"""An agent is asked over a port-forward."""

import pytest

from userspace_proxy.status.http_answer import Bounds, Unreadable
from userspace_proxy_kubectl.nodes.agent_request import OtherStatus, ask
from userspace_proxy_kubectl.port_forward import ForwardTarget
from userspace_proxy_testing.fakes.agent_answers import fixed


async def asked(agents, client, answer):
    pod = agents.add("node-1", answer)
    opened = await ask(client, ForwardTarget("kube-system", pod, 10249), "/x", Bounds())
    try:
        return await opened.whole()
    finally:
        await opened.close()


async def test_an_agent_is_asked_through_the_api_server(api, agents, client):
    assert await asked(agents, client, fixed(b"hello")) == b"hello"
    assert api.pods.dialled == ["kube-system/userspace-proxy-node-1:10249"]


async def test_another_status_has_the_beginning_of_its_text(agents, client):
    with pytest.raises(OtherStatus, match=r"HTTP status 404: not here$") as raised:
        await asked(agents, client, fixed(b"not\nhere\n", 404, Server="userspace-proxy"))
    assert raised.value.code == 404
    with pytest.raises(OtherStatus) as raised:
        await asked(agents, client, fixed(b"x" * 100_000, 500, Server="userspace-proxy"))
    assert raised.value.text == "x" * 200


async def test_a_refusal_of_kube_proxy_is_not_that_of_an_agent(agents, client):
    with pytest.raises(Unreadable, match="another program answers at that port"):
        await asked(agents, client, fixed(b"404 page not found", 404))
