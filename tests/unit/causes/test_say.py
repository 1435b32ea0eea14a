"""Tests of rendering causes in each tense and form, and with modifiers."""

import re

import pytest

from userspace_proxy.causes.cause import ROWS, Cause, When
from userspace_proxy.causes.endpoints import (
    answers_late,
    cuts_off,
    denies,
    dropped_here,
    fails,
    no_datagram,
    no_host,
    node_silent,
    refuses,
    resets,
    route_prohibits,
    sends_nothing,
    unreachable,
)
from userspace_proxy.causes.say import (
    EXPECTS_NO_HEADER,
    Form,
    kubectl_words,
    object_of,
    on_node,
    remedy,
    say,
)
from userspace_proxy.causes.services import is_headless, not_listening, source_denied
from userspace_proxy.causes.slices import none_undrained, selects_no_pod
from userspace_proxy.model import SocketAddress, ip_of

from .words import HOST, SAMPLES, WORDS, page, texts_of

POD = SocketAddress("10.244.1.8", 8080)
ALICE = "203.0.113.7"
OF_ENDPOINTS = [cause for cause in SAMPLES if cause.code.traits.is_of_endpoint]


def at_times(cause, host=""):
    return remedy(cause.replace(answers_others=True, host=host))


def test_the_texts_of_causes_match_the_recorded_page():
    recorded = WORDS.read_text().split("\n\n")
    said = page().split("\n\n")
    assert said == recorded, "if that is intended: python -m tests.unit.causes.words"


@pytest.mark.parametrize(
    "cause", [one for one in SAMPLES if one.row is not not_listening], ids=lambda one: str(one.row)
)
def test_names_in_suggested_commands_are_shell_quoted(cause):
    def hostile(value):
        value = tuple(map(hostile, value)) if isinstance(value, tuple) else value
        return f"$(reboot){value}" if isinstance(value, str) else value

    params = [(name, hostile(value)) for name, value in cause.params]
    for answers_others in (False, True):
        made = Cause(cause.row, params, host=cause.host, answers_others=answers_others)
        text = remedy(made)
        for command in [*re.findall("`(.*?)`", text), *([text] if text[:1].islower() else [])]:
            assert "$" not in re.sub("'.*?'", "", command)


def test_each_cause_row_has_a_sample_on_the_recorded_page():
    assert {sample.row.key for sample in SAMPLES} == ROWS.keys()


@pytest.mark.parametrize("cause", SAMPLES, ids=lambda cause: str(cause.row))
def test_templates_of_texts_contain_only_known_placeholders(cause):
    row, named = cause.row, dict(cause.params)
    for column in ("about", "past", "short", "hint", "outside", "at_times", "at_times_outside"):
        text = getattr(row, column)
        for place in re.findall(r"\{(\w*)", text) if isinstance(text, str) else ():
            if place == "host":
                assert "outside" in column
            elif place == "ip":
                assert ip_of(object_of(cause)), column
            elif place != "pod":
                assert place in named, column
    for _, text, _ in texts_of(cause):
        assert not re.search(r"[{}]|  ", text)
        assert not text.endswith(".")


def test_a_past_denial_names_the_client_before_the_time():
    past = denies(POD, ALICE).replace(when=When.PAST)
    assert say(past).endswith(f"but not {ALICE}, when it was last tried")
    assert remedy(past) == remedy(denies(POD, ALICE))


def test_the_text_of_a_cause_counts_similar_causes_except_in_short_form():
    cause = is_headless().replace(more=1_200)
    assert say(cause) == f"{say(is_headless())}; 1,200 more like this are not listed"
    assert say(cause, Form.SHORT) == "it is headless"


@pytest.mark.parametrize(
    ("cause", "is_likely"),
    [
        (resets(POD), True),
        (sends_nothing(POD), True),
        (answers_late(POD, 2.5), True),
        (cuts_off(POD), True),
        (refuses(POD), False),
        (no_host(POD, "eth0"), False),
    ],
    ids=lambda value: str(getattr(value, "row", "")),
)
def test_a_proxy_header_is_named_as_a_reason_only_if_the_endpoint_accepts(cause, is_likely):
    shown = cause.replace(has_header=True)
    added = " (this proxy sends a PROXY header first)" if is_likely else ""
    assert say(shown) == f"{say(cause)}{added}"
    for one in (cause, cause.replace(answers_others=True, host=HOST)):
        first = EXPECTS_NO_HEADER if is_likely else ""
        assert remedy(one.replace(has_header=True)) == f"{first}{remedy(one)}"
        last = one.replace(is_terminating=True)
        assert say(last) == f"{say(one)}; it is terminating"
        assert remedy(last).endswith(f"(`kubectl get pods`). {remedy(one)}") is (not one.host)


def test_a_failing_endpoint_also_shows_its_earlier_failure():
    since = no_datagram(POD).replace(before=refuses(POD))
    assert say(since) == (
        "10.244.1.8:8080 sends no datagram back; before, 10.244.1.8:8080 refused connections"
    )
    assert say(since.replace(when=When.PAST)) == (
        "10.244.1.8:8080 sent nothing in time when it was last tried"
    )
    assert remedy(since) == remedy(no_datagram(POD))


@pytest.mark.parametrize(
    "known", [{}, {"host": HOST}, {"answers_nodes": True, "answers_own": True}]
)
def test_a_previously_unreachable_endpoint_keeps_the_route_remedy(known):
    since = no_datagram(POD).replace(before=unreachable(POD), **known)
    assert remedy(since) == remedy(unreachable(POD).replace(**known))


@pytest.mark.parametrize("cause", OF_ENDPOINTS, ids=lambda cause: str(cause.row))
def test_the_remedy_for_an_endpoint_by_name_mentions_no_pod(cause):
    outside = cause.replace(host=HOST)
    for text in (
        remedy(outside),
        remedy(outside.replace(answers_nodes=True)),
        at_times(cause, HOST),
    ):
        assert (HOST in text) is bool(cause.row.outside)
        words = ("pod", "Pod", "POD", "targetPort", "NetworkPolicy")
        assert not [word for word in words if word in text]


PROHIBITED, LAST = route_prohibits(POD), refuses(POD).replace(is_terminating=True)
EMPTY = selects_no_pod("shop/web", 1, "app=web", ("pods",))
DESCRIBE = "describe pod -n shop web-7"
SLICES = "get endpointslices -n shop -l kubernetes.io/service-name=web -o yaml"


@pytest.mark.parametrize(
    ("cause", "pod", "words"),
    [
        pytest.param(refuses("10.244.0.9:80"), "web-7", DESCRIBE, id="of-the-endpoint's-pod"),
        pytest.param(refuses("10.244.0.9:80"), "", SLICES, id="of-an-endpoint-without-a-pod"),
        pytest.param(resets(POD), "web-7", "logs -n shop web-7", id="of-one-that-accepts"),
        pytest.param(refuses("10.244.0.9:80").replace(host=HOST), "", "", id="of-a-host"),
        pytest.param(node_silent("node-7"), "", "describe node node-7", id="of-the-row"),
        pytest.param(EMPTY, "", "get pods -n shop --show-labels", id="of-the-code"),
        pytest.param(EMPTY, "web-7", "edit service -n shop web", id="of-a-pod-that-was-named"),
        pytest.param(none_undrained(1, (), "shop/web"), "", SLICES, id="of-slices"),
        pytest.param(source_denied(()), "", "", id="nothing-shows-more"),
        pytest.param(refuses(POD), "a b", "describe pod -n shop 'a b'", id="quoted"),
        pytest.param(PROHIBITED, "web-7", "", id="of-this-node"),
        pytest.param(LAST, "web-7", "get pods -n shop -o wide", id="of-its-successors"),
    ],
)
def test_a_cause_determines_the_suggested_kubectl_command(cause, pod, words):
    assert kubectl_words(cause, "shop/web", pod) == words


@pytest.mark.parametrize(
    ("cause", "command"),
    [
        pytest.param(not_listening("", "", "ip nat K"), "nft list chain ip nat K", id="a-chain"),
        pytest.param(not_listening("", "", "ip x a b"), "nft list chain ip x 'a b'", id="a-blank"),
        pytest.param(not_listening("", "", "legacy ip filter F"), "iptables-legacy -S F", id="old"),
        pytest.param(
            not_listening("", "", "legacy ip6 mangle K"),
            "ip6tables-legacy -t mangle -S K",
            id="of-ipv6",
        ),
        pytest.param(not_listening("in use", ""), "ss -Hlntup", id="of-the-code"),
        pytest.param(PROHIBITED, "ip route show table all type prohibit", id="of-the-row"),
        pytest.param(dropped_here(POD, "rule"), "nft list ruleset; iptables-legacy-save", id="all"),
        pytest.param(fails(POD, "no-access", "Permission denied"), "ip rule", id="of-parameters"),
        pytest.param(refuses("10.244.0.9:80"), "", id="no-command"),
    ],
)
def test_a_cause_determines_the_command_suggested_on_its_node(cause, command):
    assert on_node(cause) == command
