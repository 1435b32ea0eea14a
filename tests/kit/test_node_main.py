import os
import socket

import pytest

from tests.processes import started
from userspace_proxy.errors import ConfigError
from userspace_proxy_testing.calls import PROXY, Call, CallResult, Reference
from userspace_proxy_testing.node_main import Objects, open_socket
from userspace_proxy_testing.proxy_with_decisions import ProxyWithDecisions
from userspace_proxy_testing.sandbox.holder import Holder
from userspace_proxy_testing.sandbox.reaper import namespace_of


@pytest.fixture
def objects():
    with ProxyWithDecisions() as proxy:
        yield Objects(proxy)


def test_a_socket_is_opened_in_the_namespace_of_another_process():
    own = namespace_of(os.getpid())
    with (
        Holder(rootless=False) as holder,
        open_socket(holder.pid, socket.AF_INET, socket.SOCK_STREAM) as there,
        socket.create_server(("127.0.0.1", 0)) as here,
        pytest.raises(ConnectionRefusedError),
    ):
        there.connect(here.getsockname())
    assert namespace_of(os.getpid()) == own


def test_an_exited_process_has_no_namespace():
    with started(["true"]) as ended:
        ended.wait(30)
    with pytest.raises(FileNotFoundError):
        open_socket(ended.pid, socket.AF_INET, socket.SOCK_STREAM)


def test_a_service_is_returned_as_a_reference_for_further_calls(objects):
    added = objects.answer(
        Call(PROXY, "add_service", ("web",), {"port": 80, "endpoints": ["127.0.0.1:1"]})
    )
    assert added == CallResult(Reference(1))
    assert objects.answer(Call(Reference(1), "key")).value.name == "web"
    assert objects.answer(Call(Reference(1), "remove")) == CallResult()
    assert isinstance(objects.answer(Call(Reference(1), "address")).error, LookupError)


def test_an_error_is_returned_as_a_result(objects):
    key = objects.answer(Call(PROXY, "add_service", ("web",), {"port": 80})).value
    service = objects.answer(Call(key, "key")).value
    objects.answer(Call(PROXY, "add_service", ("web",), {"port": 80, "endpoints": ["127.0.0.1:1"]}))
    answer = objects.answer(Call(PROXY, "add_fault", (service, "slow")))
    assert isinstance(answer.error, ConfigError)
