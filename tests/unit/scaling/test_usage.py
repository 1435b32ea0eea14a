"""Tests of what counts as use of a Service, and how long demand lasts."""

import pytest

from userspace_proxy.model import Handling, Hold, ServiceKey
from userspace_proxy.scaling.usage import RECENT_S, Usage
from userspace_proxy.steering import Bind

from ..agent.samples import Cluster
from ..plane.reports import report_to

POD_A, POD_B = "192.0.2.1", "192.0.2.2"
WEB = ServiceKey("shop", "web")
HOLDING = Handling(hold=Hold(60.0))


class Used:
    """The Service shop/web, about whose clients a worker reports."""

    def __init__(self, served_ports):
        self.now = 100.0
        self.cluster = Cluster()
        self.served_ports = served_ports
        self.usage = Usage(served_ports, clock=lambda: self.now)

    def serve(self, *pods, handling=HOLDING, **more):
        snapshot = self.cluster.serve("web", "10.96.0.1", *pods, handling=handling, **more)
        self.served_ports.follow(snapshot)

    @property
    def served(self):
        (served,) = self.served_ports.of_service(WEB)
        return served

    def report(self, clients=0, pod=POD_A, **counted):
        report_to(self.served.group, self.now, clients, pod, **counted)

    def demand_after(self, seconds):
        self.now += seconds
        return self.usage.demand()[WEB]


@pytest.fixture
def used(make):
    return Used(make(Bind.PROXY_PORT))


def test_a_service_without_pods_and_clients_has_no_demand(used):
    used.serve()
    assert used.demand_after(0) == 0
    used.report(clients=1)
    assert used.demand_after(0) == 1
    used.report()
    assert used.demand_after(RECENT_S - 1) == 1


def test_demand_is_the_sum_of_waiting_clients_and_open_connections(used):
    used.serve(POD_A)
    used.report(clients=3, active=2, connections=2)
    assert used.demand_after(0) == 5


def test_an_idle_connection_counts_as_demand_until_some_time_after_its_end(used):
    used.serve(POD_A)
    used.report(active=1, connections=1)
    assert used.demand_after(0) == 1
    assert used.demand_after(10 * RECENT_S) == 1
    used.report(active=-1)
    assert used.demand_after(0) == 1
    assert used.demand_after(RECENT_S - 1) == 1
    assert used.demand_after(1) == 0


@pytest.mark.parametrize(
    "counted", [{"connections": 1}, {"received_bytes": 9}, {"sent_bytes": 9}, {"waits": 1}]
)
def test_traffic_between_two_checks_counts_as_demand(used, counted):
    used.serve(POD_A)
    assert used.demand_after(0) == 1
    assert used.demand_after(RECENT_S) == 0
    used.report(**counted)
    assert used.demand_after(1) == 1
    assert used.demand_after(RECENT_S) == 0


def test_a_newly_waiting_client_counts_before_its_worker_reports(used):
    used.serve()
    used.usage.note(used.served)
    assert used.demand_after(RECENT_S - 1) == 1
    assert used.demand_after(1) == 0


def test_demand_lasts_for_the_idle_time_after_the_last_use(used):
    used.serve(POD_A, handling=Handling(hold=Hold(60.0), idle_after_s=600.0))
    used.served_ports.follow(used.cluster.serve("api", "10.96.0.2", handling=HOLDING))
    assert used.usage.demand() == {WEB: 1, ServiceKey("shop", "api"): 0}
    assert used.demand_after(599) == 1
    assert used.demand_after(1) == 0


def test_an_exited_worker_counts_as_recent_use(used):
    used.serve(POD_A)
    assert used.demand_after(0) == 1
    assert used.demand_after(RECENT_S) == 0
    used.served.group.worker_ended(0)
    assert used.demand_after(0) == 1
    assert used.demand_after(RECENT_S) == 0


def test_an_exited_worker_does_not_count_as_use_of_a_service_without_pods(used):
    used.serve()
    used.served.group.worker_ended(0)
    assert used.demand_after(0) == 0
    used.serve(POD_A)
    assert used.demand_after(0) == 1
    used.serve()
    assert used.demand_after(RECENT_S) == 0
    used.served.group.worker_ended(0)
    assert used.demand_after(0) == 0


def test_failed_dials_do_not_count_as_use(used):
    used.serve(POD_A)
    used.demand_after(0)
    used.report(failures=3)
    assert used.demand_after(RECENT_S) == 0


def test_services_without_hold_have_no_demand(used):
    used.serve(POD_A, handling=Handling())
    assert used.usage.demand() == {}
    used.serve(POD_A)
    assert used.usage.demand() == {WEB: 1}
    used.served_ports.follow(used.cluster.remove("web"))
    assert used.usage.demand() == {}
    assert used.usage._seen == {}


def test_look_records_use_between_two_reads_of_demand(used):
    used.serve(POD_A)
    used.report(active=1, connections=1)
    used.usage.look()
    used.now += 1000
    used.report(active=-1)
    used.usage.look()
    assert used.demand_after(RECENT_S - 1) == 1
