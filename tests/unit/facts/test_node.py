import msgspec
import pytest

from tests.unit.status.views import make_health_check, make_ignored, make_port, make_view
from userspace_proxy.causes.cause import CauseCode, as_read
from userspace_proxy.causes.endpoints import owes_answers
from userspace_proxy.causes.services import is_headless
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.facts import (
    FrontendFacts,
    HealthCheckFacts,
    IgnoredFacts,
    IncidentFacts,
    KernelLackFacts,
    LastStateFacts,
    Level,
    PodRuleFacts,
    PortFacts,
    RejectedFacts,
    SourceFacts,
    StatusFacts,
    WorkerFacts,
)
from userspace_proxy.facts.encoding import from_json, to_json
from userspace_proxy.facts.last_minute import LastMinuteFacts
from userspace_proxy.facts.node import KernelFacts, ObjectKey
from userspace_proxy.model import ServiceKey

WEB_OBJECT = ObjectKey("Service", "shop", "web")
WEB = FrontendFacts("10.96.0.1:80")


def test_a_missing_kernel_feature_is_described_in_a_sentence():
    lack = KernelLackFacts("numgen", "the kernel path", "the proxy", "modprobe nft_numgen")
    assert lack.words == "it lacks numgen, needed for the kernel path; instead: the proxy"


NUMGEN = KernelLackFacts("numgen", "the kernel path", "the proxy", "modprobe nft_numgen")


@pytest.mark.parametrize(
    ("kernel", "words"),
    [
        (KernelFacts("6.18"), "lacks nothing"),
        (KernelFacts("6.18", [NUMGEN]), ""),
        (
            KernelFacts("6.18", is_partly_asked=True),
            "lacks nothing that was tried; only what sockets need was tried",
        ),
        (
            KernelFacts("6.18", forbidden=["nat", "ct"]),
            "lacks nothing that was tried; no permission to try 2 of its parts",
        ),
        (KernelFacts("6.18", [NUMGEN], ["nat"]), "no permission to try 1 of its parts"),
    ],
)
def test_the_text_about_the_kernel_states_the_untested_features(kernel, words):
    assert kernel.words == words


def make_status():
    status = StatusFacts(
        ports=[
            PortFacts("shop", "web", "http", frontends=[WEB]),
            PortFacts("shop", "web"),
            PortFacts("shop", "we"),
            PortFacts("shops", "web"),
        ],
        ignored=[IgnoredFacts("shop/db", "", is_headless())],
        health_checks=[HealthCheckFacts("shop/web", 31_000, 1)],
    )
    status.demand = {ServiceKey("shop", "web"): 3}
    return status


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"given": "--steering=none"}, "userspace-proxy 0.1.0, run with --steering=none"),
        ({}, "userspace-proxy 0.1.0, run with the defaults"),
        ({"commit": "23f4b398"}, "userspace-proxy 0.1.0 (commit 23f4b398), run with the defaults"),
        ({"is_compiled": True}, "userspace-proxy 0.1.0, compiled, run with the defaults"),
        ({"config": ()}, "userspace-proxy 0.1.0"),
    ],
)
def test_the_text_about_the_program_contains_version_commit_and_flags(facts, words):
    status = StatusFacts()
    status.version, status.config = "0.1.0", [("steering", "none", "flag")]
    for name, value in facts.items():
        setattr(status, name, value)
    assert status.program == words


@pytest.mark.parametrize(
    ("service", "ports", "ignored", "checks"),
    [
        ("shop/web", ["shop/web:http", "shop/web"], [], 1),
        ("shop/web:http", ["shop/web:http"], [], 0),
        ("shop/web:80", ["shop/web:http"], [], 0),
        ("shop/web:", [], [], 0),
        ("shop/w", [], [], 0),
        ("shop/db", [], ["shop/db"], 0),
        ("shop", ["shop/web:http", "shop/web", "shop/we"], ["shop/db"], 1),
        ("sho", [], [], 0),
    ],
)
def test_the_facts_about_a_service_exclude_other_services(service, ports, ignored, checks):
    part = make_status().only(service)
    assert [port.name for port in part.ports] == ports
    assert [item.service for item in part.ignored] == ignored
    assert len(part.health_checks) == checks
    assert part.demand == {ServiceKey("shop", "web"): 3}


def test_attributes_outside_the_json_schema_are_not_encoded():
    status = make_status()
    status.ports[0].plan = None
    text = msgspec.json.encode(status, enc_hook=to_json)
    assert b'"demand"' not in text
    assert b'"digests"' not in text
    assert b'"plan"' not in msgspec.json.encode(status.ports[0], enc_hook=to_json)


def test_a_status_with_missing_and_unknown_fields_is_accepted():
    status = msgspec.json.decode(b'{"source":{"kind":"memory","x":1},"y":[]}', type=StatusFacts)
    assert status == StatusFacts(source=SourceFacts("memory"))


def test_a_cause_of_a_newer_proxy_keeps_its_code():
    text = b'{"ports":[{"cause":{"code":"new-cause","sentence":"so"},"failures_by_cause":{"x":1}}]}'
    (port,) = msgspec.json.decode(text, type=StatusFacts, dec_hook=from_json).ports
    assert port.cause == as_read(CauseCode("new-cause"), "so")
    assert (str(port.cause.code), [*port.failures_by_cause]) == ("new-cause", ["x"])


def test_the_saved_state_has_an_age_while_it_is_served():
    assert LastStateFacts(served_at=7.0).age_at(9.5) == 2.5
    assert LastStateFacts(served_at=7.0).age_at(6.0) == 0.0
    assert LastStateFacts().age_at(9.5) is None


def test_a_mistake_contains_place_and_problem_separately_and_as_one_line():
    mistake = RejectedFacts.at("a.yaml:1", "no port", WEB_OBJECT, ("shop/web",))
    assert (mistake.line, mistake.place, mistake.problem) == (
        "a.yaml:1: no port",
        "a.yaml:1",
        "no port",
    )
    assert (mistake.object, mistake.services) == ("Service shop/web", ("shop/web",))
    assert (mistake.kind, mistake.namespace, mistake.name) == WEB_OBJECT


def test_reassigning_a_mistake_to_its_own_services_yields_an_equal_mistake():
    mistake = RejectedFacts.at(
        "a.yaml:1", "no port", ObjectKey("EndpointSlice", "shop", "x"), ("shop/web",)
    )
    other = mistake.about(("shop/db",), ("shop/old",))
    assert (other.services, other.keeps) == (("shop/db",), ("shop/old",))
    assert other.about(mistake.services, ()) == mistake


def test_mistakes_in_objects_are_selected_by_service_or_port_name():
    about_web = RejectedFacts.at("a.yaml:1", "no port", WEB_OBJECT, ("shop/web",))
    source = SourceFacts(rejected=(about_web, RejectedFacts("a.yaml:9: is no YAML")))
    for name, found in (("shop/web", [about_web]), ("shop/web:http", [about_web]), ("shop/we", [])):
        assert source.rejected_of(name) == found


@pytest.mark.parametrize(
    ("endpoints", "services", "words"),
    [
        pytest.param(12, 9, "12 endpoints of 9 Services", id="several-endpoints"),
        pytest.param(1, 35, "35 Services", id="one-endpoint"),
        pytest.param(0, 1, "1 Service", id="none"),
    ],
)
def test_the_affected_services_of_an_incident_are_summarized(endpoints, services, words):
    incident = IncidentFacts(endpoints=("a:80",) * endpoints, services=("a/b",) * services)
    assert (incident.affected, incident.mark) == (words, None)


def a_view(**changes):
    view = make_view(make_port("web"), make_port("cart"), make_port("db", endpoints=()), **changes)
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    return view


def names(facts):
    return [port.service for port in facts.ports]


def test_a_summary_contains_the_requested_services():
    assert names(a_view().summarised({"shop/web", "other/cart"})) == ["web", "db"]


def test_a_summary_includes_ports_without_any_endpoint_reply():
    """Otherwise a summary of all nodes shows a UDP Service without any reply as served."""
    silent = diagnose(
        [make_port("dns", protocol="UDP", connections=71, sent_bytes=0)], SourceFacts()
    )
    assert silent[0].state.level is Level.OK
    assert names(msgspec.structs.replace(a_view(), ports=silent).summarised()) == ["dns"]


def test_a_summary_includes_ports_with_a_cause_that_leaves_a_neutral_mark():
    minute = LastMinuteFacts(
        connections=20, unanswered_requests=9, cause=owes_answers("10.0.0.1:80")
    )
    quiet = diagnose([make_port("mqtt", last_minute=minute)], SourceFacts())
    assert quiet[0].state.level is Level.OK
    assert names(msgspec.structs.replace(a_view(), ports=quiet).summarised()) == ["mqtt"]


def test_a_summary_omits_ignored_services_without_a_conflict_unless_named():
    quiet = make_ignored("shop/headless", "", "it is headless")
    taken = make_ignored("shop/late", "", "another one has its address", is_conflict=True)
    view = a_view(ignored=(quiet, taken))
    assert view.summarised().ignored == [taken]
    assert view.summarised({"shop/headless"}).ignored == [quiet, taken]


def test_a_summary_omits_health_checks_without_a_problem():
    well = make_health_check("shop/web", 31_000, 1)
    fails = make_health_check("shop/cart", 31_001, 1, "cannot listen")
    assert a_view(health_checks=(well, fails)).summarised().health_checks == [fails]


def test_a_summary_omits_constantly_changing_counters():
    worker = WorkerFacts(0, 77, connections=5, iterations=((0.001, 9), (None, 1)), iterations_s=1.5)
    view = a_view(workers=(worker,))
    (short,) = view.summarised().workers
    assert (short.pid, short.connections, short.iterations, short.iterations_s) == (77, 5, (), 0.0)
    assert view.workers == (worker,)


def test_ignored_services_and_health_checks_have_the_key_of_their_service():
    cart = ServiceKey("shop", "cart")
    assert make_ignored("shop/cart", "", "of another proxy").key == cart
    assert HealthCheckFacts("shop/cart").key == cart


@pytest.mark.parametrize(
    ("rule", "is_about"),
    [
        ("10.244.1.7", True),
        ("10.244.1.0/24", True),
        ("10.244.2.0/24", False),
        ("no address", False),
    ],
)
def test_a_pod_rule_is_about_its_address_or_the_pods_of_its_network(rule, is_about):
    assert PodRuleFacts(rule).is_about("10.244.1.7") is is_about
