"""Tests of the next command's properties; ``words.txt`` contains the commands."""

import shlex

from tests.unit.status.views import make_endpoint, make_port
from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.causes.say import kubectl_words, object_of
from userspace_proxy.explain.next_command import Invocation, next_command

from .subjects import make_subject
from .words import DEAD, FROM_FILES, LIVE, PLANNED, is_on_the_page


def test_the_next_command_differs_from_the_command_just_run():
    for cause in (None, *(as_read(code, "?", "10.0.0.1:80") for code in CauseCode)):
        for subject in (LIVE, FROM_FILES, PLANNED):
            for source in ((), ("--kubeconfig=k",), ("--manifests=m",)):
                invocation = Invocation(source=source, has_dialled=True, has_pods=True)
                command = next_command(cause, subject, invocation)
                assert command != invocation.again("shop/web")
                assert " status " not in command
                assert " check " not in command


def test_arguments_are_quoted_in_the_next_command():
    source = ("--kubeconfig=my dir/$(reboot)", "--context=a;b")
    api = Invocation(("kubectl", "a b"), source, ("--from=it's",), has_dialled=True)
    words = ["kubectl", "a b", "explain", "shop/web", *source, "--from=it's", "--node=x y"]
    assert shlex.split(api.again("shop/web", "--node=x y")) == words
    command = next_command(refuses("10.0.0.1:80"), LIVE, api, pod="$(reboot)")
    assert shlex.split(command)[-3:] == ["$(reboot)", *source]


def test_the_next_command_about_an_endpoint_shows_its_pod():
    api = Invocation(source=("--kubeconfig=k",))
    port = make_port(endpoints=(make_endpoint(object_of(DEAD), pod="web-7"),))
    words = api.kubectl(kubectl_words(DEAD, "shop/web", "web-7"))
    assert next_command(DEAD, make_subject(port, service="shop/web"), api) == words


def test_the_next_commands_match_the_recorded_page():
    assert is_on_the_page("next")
