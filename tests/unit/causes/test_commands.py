import pytest

from userspace_proxy.causes.commands import kubectl_words, on_node
from userspace_proxy.causes.endpoints import node_silent, refuses
from userspace_proxy.causes.services import not_listening, source_denied
from userspace_proxy.causes.slices import none_undrained, selects_no_pod

POD_AT = "get pods -A -o wide --field-selector status.podIP=10.244.0.9"
EMPTY = selects_no_pod("shop/web", 1, "app=web", ("pods",))
SLICES = "get endpointslices -n shop -l kubernetes.io/service-name=web -o yaml"


@pytest.mark.parametrize(
    ("cause", "pod", "words"),
    [
        pytest.param(refuses("10.244.0.9:80"), "", POD_AT, id="a-pod-by-its-address"),
        pytest.param(node_silent("node-7"), "", "describe node node-7", id="of-the-row"),
        pytest.param(EMPTY, "", "get pods -n shop --show-labels", id="of-the-code"),
        pytest.param(EMPTY, "web-7", "edit service -n shop web", id="of-a-pod-that-was-named"),
        pytest.param(none_undrained(1, (), "shop/web"), "", SLICES, id="of-slices"),
        pytest.param(source_denied(()), "", "", id="nothing-shows-more"),
        pytest.param(
            refuses("$(reboot):80"), "", POD_AT.replace("10.244.0.9", "'$(reboot)'"), id="quoted"
        ),
    ],
)
def test_kubectl_shows_more_of_a_cause(cause, pod, words):
    assert kubectl_words(cause, "shop/web", pod) == words


@pytest.mark.parametrize(
    ("cause", "command"),
    [
        pytest.param(not_listening("", "", "ip nat K"), "nft list chain ip nat K", id="a-chain"),
        pytest.param(not_listening("in use", ""), "ss -Hlntup", id="of-the-code"),
        pytest.param(refuses("10.244.0.9:80"), "", id="nothing"),
    ],
)
def test_a_command_on_the_node_shows_more_of_a_cause(cause, command):
    assert on_node(cause) == command
