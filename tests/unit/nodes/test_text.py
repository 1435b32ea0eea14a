import msgspec

from userspace_proxy.causes.endpoints import refuses, silent
from userspace_proxy.facts import (
    FirewallFacts,
    IncidentFacts,
    Level,
    PortState,
    SteeringState,
    TotalsFacts,
    Waits,
)
from userspace_proxy.facts.processes import ProcessFacts
from userspace_proxy.model import Taken
from userspace_proxy_kubectl.nodes.as_json import nodes_to_json, status_to_json
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.text import render_nodes, render_status, render_top

from .views import (
    NOW,
    POD,
    all_of,
    answer_of,
    answering,
    failing,
    make_sick_cluster,
    merged_of,
    web,
    without_answer,
)

BAD = "\x1b[2J\u202e<script>\n"


def lines_of(text):
    return text.body.decode().splitlines()


def shown_rates(merged, before, **options):
    _, heading, *rows = lines_of(render_top(merged, before, **options))
    return heading.split(), [row.split() for row in rows]


def test_a_finding_about_many_nodes_is_printed_once_above_the_table():
    nodes = [without_answer(f"n{number}") for number in range(9)]
    lines = lines_of(render_nodes(merged_of(*nodes)))
    assert sum("no answer within 5 s" in line for line in lines) == 1
    assert lines[1] == "  ✕ n0, n1, n2 and 6 others: no answer within 5 s"


def test_the_status_text_limits_lists_and_counts_omitted_items():
    twice = [
        port
        for n in range(7)
        for port in (web(failing(silent(f"10.8.0.{n}:80")), name=f"{name}{n}") for name in "ab")
    ]
    answers = [
        answer_of(
            f"n{number}",
            *(twice if number == 0 else ()),
            firewalls=[FirewallFacts(f"ip filter c{number}{n}", "x") for n in range(3)],
        )
        for number in range(3)
    ]
    merged = merged_of(*answers)
    lines = lines_of(render_status(merged))
    assert "    and 1 more finding about nodes: the command nodes lists them" in lines
    assert "    and 2 more causes of several Services: wide output lists them" in lines
    wide = lines_of(render_status(merged, is_wide=True))
    assert not any("more finding" in line or "more causes" in line for line in wide)


def test_the_text_limits_one_agents_service_ports():
    answer = answer_of("a")
    port = web(answering())
    ports = [msgspec.structs.replace(port, service=f"s{number}") for number in range(10_005)]
    status = msgspec.structs.replace(answer.status, ports=ports)
    merged = merged_of(answer_of("a", status=status))
    lines = lines_of(render_status(merged))
    assert (len(lines), lines[-1]) == (10_002, "    and 5 more Service ports")
    assert lines_of(render_top(merged, merged))[-1] == "    and 9,805 more"


def test_the_status_text_counts_ports_omitted_by_summaries():
    sick = web(failing(refuses(POD)))
    merged = merged_of(answer_of("a", sick, is_summary=True, served=9))
    lines = lines_of(render_status(merged))
    assert lines[0].split("  ")[1] == "10 Service ports, 1 needs attention"
    assert lines[-1] == "  ✓ 9 other Service ports served wherever that is known"
    merged = merged_of(answer_of("a", is_summary=True, served=9))
    assert (
        lines_of(render_status(merged))[-1] == "  ✓ 9 Service ports served wherever that is known"
    )
    assert render_status(merged).level is Level.OK


def test_ports_that_a_chain_may_take_are_counted_and_precede_other_served_ports():
    doubt = Taken("x may drop it", "", "ip x", is_certain=False)
    ports = web(answering()), web(answering(), name="zoo", perhaps_taken=doubt)
    merged = merged_of(answer_of("a", *ports, web(failing(refuses(POD)), name="sick")))
    header, *_, first, second = lines_of(render_status(merged))
    assert (
        "3 Service ports, 1 needs attention, 1 may lose packets to other programs' rules  "
        in header
    )
    assert ("shop/zoo" in first, "shop/web" in second) == (True, True)


def test_columns_are_omitted_on_a_narrow_terminal():
    merged = merge(make_sick_cluster())
    narrow, wide = (lines_of(render_nodes(merged, columns=width)) for width in (50, 200))
    headings = ["NODE", "PLAN", "BEHIND", "NOT", "OK", "CPU", "MEMORY"]
    assert narrow[1].split() == headings
    assert {*wide[1].split()} > {*headings}


def test_top_lists_the_busiest_services_first():
    def at(now, rates):
        ports = [web(answering(), name=n, connections=c, active=a, saved=0) for n, c, a in rates]
        return merged_of(answer_of("a", *ports, now=now))

    before = at(NOW, [("a", 10, 1), ("b", 10, 9), ("c", 10, 5)])
    now = at(NOW + 10, [("a", 40, 1), ("b", 20, 9), ("c", 110, 5)])
    headings, rows = shown_rates(now, before)
    assert headings[:5] == ["SERVICE", "PORT", "OK", "ON", "OPEN"]
    assert [(row[1], row[5], row[6]) for row in rows] == [
        ("shop/c:http", "5", "10"), ("shop/a:http", "1", "3.0"), ("shop/b:http", "9", "1.0"),
    ]  # fmt: skip
    assert shown_rates(now, before, sort="open")[1][0][1] == "shop/b:http"
    assert shown_rates(now, before, sort="name")[1][0][1] == "shop/a:http"
    assert [row[-1] for row in shown_rates(now, None)[1]] == ["-"] * 3
    long = "x" * 90
    merged = merged_of(answer_of("a", web(answering(), name=long)))
    assert f"  ✓ shop/{long}:http" in lines_of(render_top(merged, None, columns=80))


MOST, LATEST = 2**53, 9_999_999_999.0


def hostile(node):
    """Return a response with anomalies that decoding accepts."""
    cause = silent(BAD).replace(count=-MOST, first_at=LATEST, last_at=LATEST)
    port = web(answering())
    state = msgspec.structs.replace(
        port.state,
        level=Level.TROUBLE,
        word=PortState(BAD * 100),
        sentence=BAD,
        causes=(cause, refuses(POD)),
        clauses=(),
    )
    endpoint = msgspec.structs.replace(
        answering(), address=BAD, node=BAD, connections=-1, sent_bytes=MOST, cause=cause
    )
    port = msgspec.structs.replace(
        port,
        namespace=BAD,
        service="x" * 200,
        port=BAD,
        family=BAD,
        side=BAD,
        frontends=(),
        endpoints=(endpoint, endpoint, answering()),
        state=state,
        active=-5,
        connections=MOST,
        refused=MOST,
        waits=Waits(waiting=-MOST),
    )
    status = answer_of(node).status
    status = msgspec.structs.replace(
        status,
        now=LATEST,
        node=BAD,
        version=BAD * 1000,
        commit=BAD,
        started=0.0,
        steering=SteeringState(BAD, problem=BAD),
        incidents=(IncidentFacts(BAD),),
        ports=(port, port),
        totals=TotalsFacts(active=-1, connections=MOST),
        process=ProcessFacts(-MOST, -5),
        settings={BAD: [[BAD]], "path": {"x": BAD}},
        served=-MOST,
        is_ready=False,
    )
    return answer_of(node, status=status, is_summary=True)


def test_a_hostile_response_affects_only_its_own_row():
    fine = [answer_of(f"n{number}", web(answering())) for number in range(4)]
    nodes = all_of(*fine, hostile("bad"), digests={"shop/web": "1"})
    merged = merge(nodes, nodes)
    assert [port.key.name for port in merged.ports] == ["shop/web:http"]
    assert {row.node for row in merged.rows if row.level is not Level.OK} == {"bad"}
    # Without digests, the hostile node's Service ports are listed last within their level.
    merged = merge(all_of(*fine, hostile("bad")), nodes)
    texts = [
        render(merged, **options)
        for render in (render_status, render_nodes)
        for options in ({}, {"columns": 80})
    ]
    texts += [render_status(merged, is_wide=True), render_top(merged, merged, columns=80)]
    for text in texts:
        shown = text.body.decode()
        assert all(line.isprintable() for line in shown.splitlines())
        assert "shop/web:http" in shown or "n0" in shown
        assert max(map(len, shown.splitlines())) < 2_000
    assert b"\x1b" not in status_to_json(merged) + nodes_to_json(merged)
    assert all(one.sums.connections < 2**60 for one in merged.ports)
