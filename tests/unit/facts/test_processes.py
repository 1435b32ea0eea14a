from userspace_proxy.facts import MemoryFacts, WorkerFacts, figures_of


def test_each_worker_has_a_series_of_its_connections_and_flows():
    figures = figures_of(WorkerFacts)
    assert {name: figure.metric for name, figure in figures.items()} == {
        "connections": "worker_connections_active",
        "flows": "worker_flows_active",
    }


def test_without_a_limit_of_memory_nothing_is_short():
    facts = MemoryFacts()
    assert (facts.used_bytes, facts.limit_bytes, facts.is_short, facts.was_short) == (
        0,
        0,
        False,
        False,
    )
