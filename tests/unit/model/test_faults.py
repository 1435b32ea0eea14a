"""Faults on purpose as values, and their text."""

import pytest

from userspace_proxy.errors import ConfigError
from userspace_proxy.model import Fault, Protocol, SocketAddress
from userspace_proxy.model.faults import check_listener_fault, check_type, read_faults

ONE, TWO = SocketAddress("10.244.0.7", 8080), SocketAddress("fd00::7", 8080)


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("refuse", [Fault("refuse")]),
        ("latency(latency=100,jitter=20)", [Fault("latency", (("latency", 100), ("jitter", 20)))]),
        (
            " timeout ( timeout = 5 , stream = upstream , toxicity = 0.5 ) ; silent ; ",
            [Fault("timeout", (("timeout", 5),), "upstream", 0.5), Fault("silent")],
        ),
        ("fail_first(count=3)@10.244.0.7", [Fault("fail_first", (("count", 3),), endpoint=ONE.ip)]),
        ("loss(percent=5)@10.244.0.7:8080", [Fault("loss", (("percent", 5),), endpoint=str(ONE))]),
        ("refuse()@FD00::0:7", [Fault("refuse", endpoint="fd00::7")]),
        ("refuse@[fd00::7]:8080", [Fault("refuse", endpoint="[fd00::7]:8080")]),
        ("", []),
    ],
)
def test_faults_are_separated_by_semicolons(text, faults):
    assert list(read_faults(text)) == faults


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("latancy(latency=1)", r"there is no fault 'latancy' \(did you mean latency\?\)"),
        ("slow", r"there is no fault 'slow' \(.*\)"),
        ("latency(latancy=1)", r"toxic latency has no 'latancy' \(did you mean latency\?\)"),
        ("latency(latency=1O0)", "fault latency: 'latency': '1O0' is not a number"),
        ("latency(a\nb=x)", r"fault latency: 'a\\nb': 'x' is not a number"),
        ("latency(latency)", "fault latency: 'latency': '' is not a number"),
        ("latency(latency=-1)", "toxic latency: latency: -1 is not a .*number from 0"),
        ("latency(latency=1, toxicity=2)", "toxicity 2.0 is not a number from 0 to 1"),
        ("latency(latency=1, toxicity=x)", "fault latency: 'toxicity': 'x' is not a number"),
        ("latency(latency=1, stream=sideways)", "stream 'sideways' is not upstream or downstream"),
        ("refuse(stream=upstream)", "fault refuse has no stream and no toxicity"),
        ("refuse(toxicity=0.5)", "fault refuse has no stream and no toxicity"),
        ("refuse(count=1)", r"fault refuse: attributes \['count'\] \(it takes none\)"),
        ("fail_first", r"fault fail_first: attributes \[\] \(give count=N\)"),
        ("fail_first(count=-1)", "count: -1 is not a whole number from 0"),
        (f"latency{' ' * 20_000}x", "'… is not TYPE"),
        ("latency latency=1", r"'latency latency=1' is not TYPE\(ATTRIBUTE=NUMBER, …\)"),
        ("refuse@web-1", "endpoint 'web-1' is not an IP address, or one with a port"),
        ("refuse@10.244.0.7:0", "endpoint '10.244.0.7:0' is not an IP address"),
        ("refuse@[web]:80", r"endpoint '\[web\]:80' is not an IP address"),
    ],
)
def test_a_wrong_text_is_refused_with_what_was_probably_meant(text, words):
    with pytest.raises(ConfigError, match=words):
        read_faults(f"silent; {text}")


def test_each_protocol_has_faults_of_its_own():
    assert [Fault("latency").is_for(each) for each in Protocol] == [True, True]
    assert [Fault("refuse").is_for(each) for each in Protocol] == [True, False]
    assert [Fault("loss").is_for(each) for each in Protocol] == [False, True]
    with pytest.raises(ConfigError, match="fault loss is for UDP only"):
        check_type("loss", Protocol.TCP)
    with pytest.raises(ConfigError, match="fault refuse is for TCP only"):
        check_type("refuse", Protocol.UDP)


@pytest.mark.parametrize(
    ("at", "affected"),
    [("", [ONE, TWO]), ("10.244.0.7", [ONE]), ("10.244.0.7:8080", [ONE]), ("10.244.0.7:80", [])],
)
def test_a_fault_may_be_for_one_endpoint(at, affected):
    assert [e for e in (ONE, TWO) if Fault("refuse", endpoint=at).affects(e)] == affected


@pytest.mark.parametrize("count", [1.5, True, "2"])
def test_a_count_that_is_no_whole_number_is_an_error(count):
    with pytest.raises(ConfigError, match="is not a whole number from 0"):
        check_listener_fault("fail_first", {"count": count})
