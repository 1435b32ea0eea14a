import pytest

from userspace_proxy.causes import names
from userspace_proxy.causes.notes import (
    cause_of,
    names_beside_selector,
    names_bug,
)
from userspace_proxy.cluster import ServiceState
from userspace_proxy.cluster.name_requests import without_names
from userspace_proxy.model import (
    Endpoint,
    EndpointSlice,
    Handling,
    IPFamily,
    Service,
    ServiceKey,
    ServicePort,
    SliceKey,
    SlicePort,
)
from userspace_proxy.model.annotations import DOMAIN, unknown_notes
from userspace_proxy.model.endpoint_names import (
    EndpointName,
    NameProblem,
    NameSlice,
    NameState,
    ResolvedSlice,
)
from userspace_proxy.model.notes import NoteKind
from userspace_proxy.policy.name_causes import name_notes, needs_nodes, unserved_name_reason

KEY = ServiceKey("shop", "db")
V4, V6 = IPFamily.IPV4, IPFamily.IPV6
HOST = "db.example.com"
NAMES = (EndpointName(HOST, 5432, "sql"),)
SQL, REST = ServicePort("sql", 5432, "TCP"), ServicePort("rest", 80, "TCP")


def slice_of(kind=ResolvedSlice, family=V4, port="sql", **fields):
    ports = (SlicePort(port, 5432, "TCP"),)
    return kind(SliceKey("shop", f"db:{HOST}:4"), KEY, family, ports, (), **fields)


def resolved(*problems, **fields):
    return slice_of(problems=problems, **fields)


def why(*slices, names=NAMES, port=SQL, family=V4, **fields):
    service = Service(KEY, (SQL, REST), handling=Handling(names=names), **fields)
    return unserved_name_reason(ServiceState(service, slices), port, family)


@pytest.mark.parametrize(
    ("state", "detail", "cause"),
    [
        (NameState.NOT_ALLOWED, "", names.name_not_allowed(HOST)),
        (NameState.NETWORKS_UNKNOWN, "", names.networks_unknown(HOST)),
        (NameState.NODES_UNKNOWN, "", names.nodes_unknown(HOST)),
        (NameState.TOO_MANY, "", names.too_many_names(HOST, 16, 64, 100, 1_000)),
        (NameState.PENDING, "", names.not_looked_up_yet(HOST)),
        (NameState.UNRESOLVED, "no such name", names.name_unresolved(HOST, "no such name")),
        (NameState.STALE, "no server answers", names.name_stale(HOST, "no server answers")),
        (NameState.FORBIDDEN, "127.0.0.1", names.name_leads_astray(HOST, "127.0.0.1")),
        (NameState.NO_ADDRESS, "IPv6", names.no_address_of_family(HOST, "IPv6")),
    ],
)
def test_problems_of_an_endpoint_name_are_reported_with_their_start_time(state, detail, cause):
    found = why(resolved(NameProblem(HOST, state, detail, since=5.0)))
    assert found == cause.replace(first_at=5.0)


def test_a_service_without_endpoint_names_has_no_name_cause():
    assert why(names=()) is None
    plain = EndpointSlice(SliceKey("shop", "a"), KEY, V4, (), (Endpoint("192.0.2.1"),))
    assert why(plain, names=()) is None


def test_a_service_with_a_selector_and_no_names_has_no_name_cause():
    assert why(names=(), selector=SELECTOR) is None


def test_endpoint_names_are_reported_as_not_looked_up_outside_a_proxy():
    named = slice_of(NameSlice, named=(Endpoint(HOST),))
    assert why() == why(named, names=()) == names.not_looked_up_yet(HOST)


KEY_OF_NAMES = "userspace-proxy.io/endpoints"
UNREAD = NoteKind.ANNOTATION_WRONG(KEY_OF_NAMES, "is no name", "none is found")
ANOTHER = NoteKind.HEADER_WITHOUT_TCP()
MISSPELT = unknown_notes({f"{DOMAIN}endpoint": ""}, [f"{DOMAIN}endpoints"])[0]
SELECTOR = (("app", "db"),)


@pytest.mark.parametrize("note", [UNREAD, MISSPELT], ids=["wrong-value", "misspelt-key"])
def test_an_unreadable_endpoints_annotation_is_the_cause(note):
    assert why(names=(), notes=(ANOTHER, note)) == cause_of(note)


def test_an_endpoint_name_together_with_a_selector_is_the_cause():
    cause = why(selector=SELECTOR, cluster_ips=("10.96.0.1",))
    assert cause == names_beside_selector(KEY_OF_NAMES)


def test_an_annotation_is_not_the_cause_if_other_slices_exist():
    plain = EndpointSlice(SliceKey("shop", "a"), KEY, V4, (), (Endpoint("192.0.2.1"),))
    assert why(plain, names=(), notes=(UNREAD,)) is None
    empty = EndpointSlice(SliceKey("shop", "a"), KEY, V4, (), ())
    assert why(empty, names=(), notes=(UNREAD,), selector=SELECTOR) is None
    assert why(names=(), notes=(ANOTHER,), selector=SELECTOR) is None


def test_a_slice_with_the_headless_label_does_not_count_as_another_source():
    item = EndpointSlice(
        SliceKey("shop", "x"), KEY, V4, (), (Endpoint("192.0.2.1"),), is_headless=True
    )
    assert why(item, names=(), notes=(UNREAD,)) == cause_of(UNREAD)


def test_an_internal_error_is_the_cause_even_beside_unready_endpoints():
    plain = EndpointSlice(SliceKey("shop", "a"), KEY, V4, (), (Endpoint("192.0.2.1", ready=False),))
    state = without_names(ServiceState(Service(KEY, (SQL,)), (plain,)), "OSError(12)")
    cause = unserved_name_reason(state, SQL, V4)
    assert cause == names_bug("OSError(12)")


def test_a_name_slice_without_names_is_ignored():
    assert why(slice_of(NameSlice), names=()) is None


def test_only_name_problems_of_the_ports_family_are_reported():
    problem = NameProblem(HOST, NameState.NO_ADDRESS, "IPv6")
    assert why(resolved(), resolved(problem, family=V6)) is None
    assert why(resolved(), resolved(problem, family=V6), family=V6) is not None


def test_a_port_without_a_name_in_a_name_slice_is_reported():
    assert why(resolved(), port=REST) == names.no_name_for_port("rest")


def test_a_name_slice_without_the_port_is_not_the_cause():
    assert why(resolved(), port=REST, names=()) is None


def test_notes_list_each_lasting_name_problem_once():
    not_allowed = NameProblem(HOST, NameState.NOT_ALLOWED)
    pending = NameProblem("b.test", NameState.PENDING)
    no_address = NameProblem("c.test", NameState.NO_ADDRESS, "IPv6")
    slices = [resolved(not_allowed, pending), resolved(not_allowed, no_address)]
    plain = EndpointSlice(SliceKey("shop", "a"), KEY, V4, (), ())
    assert list(name_notes([plain, *slices])) == [names.name_not_allowed(HOST)]


@pytest.mark.parametrize(
    ("slices", "needed"),
    [
        ([resolved()], True),
        ([resolved(NameProblem(HOST, NameState.NODES_UNKNOWN))], True),
        ([resolved(NameProblem(HOST, NameState.PENDING))], True),
        ([resolved(NameProblem(HOST, NameState.NETWORKS_UNKNOWN))], False),
        ([resolved(NameProblem(HOST, NameState.NOT_ALLOWED))], False),
        ([slice_of(EndpointSlice)], False),
    ],
)
def test_node_addresses_are_needed_for_names_that_may_be_resolved(slices, needed):
    assert needs_nodes(ServiceState(Service(KEY, (SQL,)), tuple(slices))) is needed


def test_a_saved_service_with_endpoint_host_names_needs_the_nodes():
    found = Handling(found_by_name=("203.0.113.1",))
    assert needs_nodes(
        ServiceState(Service(KEY, (SQL,), handling=found), (slice_of(EndpointSlice),))
    )
