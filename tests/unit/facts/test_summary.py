from tests.unit.status.views import make_health_check, make_ignored, make_port, make_view
from userspace_proxy.diagnosis.judge import diagnose
from userspace_proxy.facts import WorkerFacts
from userspace_proxy.facts.summary import summarised


def a_view(**changes):
    view = make_view(make_port("web"), make_port("cart"), make_port("db", endpoints=()), **changes)
    view.ports = diagnose(view.ports, view.source, view.health_checks)
    return view


def names(facts):
    return [port.service for port in facts.ports]


def test_a_summary_has_the_service_ports_that_are_not_ok():
    assert names(summarised(a_view())) == ["db"]


def test_a_summary_has_the_services_that_are_asked_for():
    assert names(summarised(a_view(), {"shop/web", "other/cart"})) == ["web", "db"]


def test_a_summary_has_of_ignored_services_only_conflicts():
    quiet = make_ignored("shop/headless", "", "it is headless")
    taken = make_ignored("shop/late", "", "another one has its address", is_conflict=True)
    view = a_view(ignored=(quiet, taken))
    assert summarised(view).ignored == [taken]
    assert summarised(view, {"shop/headless"}).ignored == [quiet, taken]


def test_a_summary_has_of_health_checks_only_problems():
    well = make_health_check("shop/web", 31_000, 1)
    fails = make_health_check("shop/cart", 31_001, 1, "cannot listen")
    assert summarised(a_view(health_checks=(well, fails))).health_checks == [fails]


def test_a_summary_lacks_what_changes_all_the_time():
    worker = WorkerFacts(0, 77, connections=5, iterations=((0.001, 9), (None, 1)), iterations_s=1.5)
    view = a_view(workers=(worker,))
    (short,) = summarised(view).workers
    assert (short.pid, short.connections, short.iterations, short.iterations_s) == (77, 5, (), 0.0)
    assert view.workers == (worker,)
