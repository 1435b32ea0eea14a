import msgspec

from userspace_proxy.facts import StatusFacts, figures_of
from userspace_proxy.facts.compared import PlanFacts


def test_what_the_processes_take_is_a_metric_of_the_node():
    figures = figures_of(StatusFacts)
    cpu, memory = figures["process.cpu_s"], figures["process.memory_bytes"]
    assert (cpu.kind, cpu.metric) == ("counter", "process_cpu_seconds")
    assert (memory.kind, memory.metric) == ("gauge", "process_memory_bytes")


def test_an_older_proxy_has_no_digests():
    assert msgspec.json.decode(b"{}", type=StatusFacts).plan == PlanFacts()
