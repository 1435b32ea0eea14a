from userspace_proxy.facts import MemoryFacts, StatusFacts, WorkerFacts, figures_of


def test_connections_and_flows_are_metrics_of_each_worker():
    figures = figures_of(WorkerFacts)
    assert {name: figure.metric for name, figure in figures.items()} == {
        "connections": "worker_connections_active",
        "flows": "worker_flows_active",
    }


def test_memory_facts_default_to_no_limit_and_no_shortage():
    facts = MemoryFacts()
    assert (facts.used_bytes, facts.limit_bytes, facts.is_short, facts.was_short) == (
        0,
        0,
        False,
        False,
    )


def test_cpu_and_memory_of_all_processes_are_node_metrics():
    figures = figures_of(StatusFacts)
    cpu, memory = figures["process.cpu_s"], figures["process.memory_bytes"]
    assert (cpu.kind, cpu.metric) == ("counter", "process_cpu_seconds")
    assert (memory.kind, memory.metric) == ("gauge", "process_memory_bytes")
