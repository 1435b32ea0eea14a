"""Writes all texts about several nodes to ``words.txt``, whose diff shows a change's effect.

``python -m tests.unit.nodes.words`` writes it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from userspace_proxy.causes.cause import When
from userspace_proxy.causes.endpoints import (
    answers_flows_late,
    denies,
    no_host,
    not_all_to_endpoint,
    refuses,
    sends_nothing,
    silent,
    unreachable,
)
from userspace_proxy.causes.services import (
    dials_other_port,
    has_headless_label,
    is_external_name,
    is_headless,
    of_other_proxy,
    source_denied,
    unsupported_protocol,
)
from userspace_proxy.causes.slices import selects_no_pod
from userspace_proxy.facts import EndpointFacts, LastMinuteFacts
from userspace_proxy_kubectl.nodes.agent_answer import AllNodes
from userspace_proxy_kubectl.nodes.merged import merge
from userspace_proxy_kubectl.nodes.text import render_nodes, render_status, render_top
from userspace_proxy_kubectl.nodes.words import format_endpoint, format_incident, format_port

from ..status.views import NOW, make_ignored
from .views import (
    ON_OTHERS,
    OTHER,
    POD,
    QUIET,
    all_of,
    answer_of,
    answering,
    failing,
    flows,
    make_sick_cluster,
    untried,
    web,
    without_answer,
)

WORDS = Path(__file__).parent / "words.txt"
COLUMNS = 120
OTHERS = dials_other_port(("10.96.7.1:81/TCP",), ("10.96.7.1:80/TCP",)).replace(count=44)
OUTSIDE = source_denied(("10.0.0.0/8",)).replace(count=7)

_ON_FIRST, _FROM_SECOND = answering(node="node-1"), failing(silent(POD), node="node-1")
_SILENT, _REFUSES = failing(silent(POD)), failing(refuses(POD))
_ABSENT = failing(no_host(POD, "cni0"))
_PAST = failing(silent(POD).replace(when=When.PAST), is_past=True)
_NOW_SILENT = failing(silent(POD).replace(last_at=NOW))
_BEFORE = answering(answered_at=NOW - 90, sent_at=NOW - 90)

SEEN: dict[str, tuple[EndpointFacts, ...]] = {
    "all that tried are answered": (answering(), answering(), untried()),
    "no node has tried": (untried(), untried()),
    "one node has tried": (_REFUSES, untried()),
    "both nodes fail": (_REFUSES, _REFUSES),
    "all that tried fail": (_REFUSES, _REFUSES, _REFUSES, untried()),
    "one of two": (_SILENT, answering()),
    "one of many": (_SILENT, *[answering()] * 11),
    "few of many": (*[_SILENT] * 4, *[answering()] * 9, untried()),
    "most": (*[_SILENT] * 4, answering()),
    "only its own node is answered": (_ON_FIRST, _FROM_SECOND),
    "its own node and another are answered": (_ON_FIRST, _FROM_SECOND, answering(node="node-1")),
    "two causes": (_SILENT, _REFUSES, *[answering()] * 9),
    "two causes, none is answered": (_SILENT, _SILENT, _REFUSES),
    "three causes": (_SILENT, _REFUSES, failing(unreachable(POD)), answering(), answering()),
    "two causes, one of its own node": tuple(
        failing(cause, node="node-3")
        for cause in (unreachable(POD), unreachable(POD), no_host(POD, "cni0"))
    ),
    "three causes, none is answered": (_SILENT, failing(unreachable(POD)), _ABSENT),
    "answers are older than the failures": (_NOW_SILENT, _BEFORE, _BEFORE),
    "one answer is older than the failures": (_NOW_SILENT, _NOW_SILENT, _BEFORE),
    "some answers are older than the failures": (_NOW_SILENT, _BEFORE, answering()),
    "in the past": (_PAST, answering(), answering()),
    "no dial fails": (failing(sends_nothing(POD)), answering(), answering()),
    "packets are lost": (failing(not_all_to_endpoint(POD)), answering(), answering()),
    "some clients are denied": (failing(denies(POD, "10.1.1.1")), answering(), answering()),
}
"""Views of one endpoint by several nodes."""


def nodes_with(*endpoints: EndpointFacts, summaries: int = 0) -> AllNodes:
    """Return nodes on which the first endpoint of a Service port has these states.

    Args:
        summaries: The number of further nodes, whose summaries omit the Service port as ok.
    """
    return all_of(
        *(
            answer_of(f"node-{number}", web(endpoint, answering(OTHER)))
            for number, endpoint in enumerate(endpoints, 1)
        ),
        *(answer_of(f"other-{n}", is_summary=True, served=9) for n in range(summaries)),
    )


def make_ports() -> AllNodes:
    """Return Service ports in several states on several nodes."""
    no_pod = selects_no_pod("shop/cart", 1, "app=cart", ("pods", "-n", "shop"))
    cart = web(untried(state="not ready", is_usable=False), name="cart", cause=no_pod)
    gone = [refuses("10.1.1.1:80"), silent("10.1.1.2:80"), unreachable("10.1.1.3:80")]
    few = {"last_minute": LastMinuteFacts(connections=200, endpoint_aborts=60)}
    reasons = of_other_proxy("mesh"), is_headless(), is_headless(), unsupported_protocol("SCTP")
    ignored = [
        make_ignored(f"shop/i{number}", "", reason)
        for number, reason in enumerate((*reasons, has_headless_label(), is_external_name()))
    ]
    dead = [unreachable("10.1.1.9:80"), silent("10.1.1.9:81"), silent("10.1.1.9:82")]
    answers = []
    for number in range(1, 7):
        ports = [
            cart,
            *(web(failing(one), name=f"dead-{n}") for n, one in enumerate(dead)),
            web(
                failing(silent(POD)) if number == 1 else answering(),
                name="idle",
                is_quiet=number > 2,
            ),
            web(*map(failing, gone), name="gone"),
            web(answering(), name="lately", **(few if number == 1 else {})),
            web(answering(), name="old", is_quiet=True, sent_at=NOW - 200 - number),
            web(answering(), name="busy", is_quiet=number > 1, sent_at=NOW - 200),
            web(answering(), name="ranges", turned_away=[OUTSIDE] * (number == 1)),
            web(answering(), name="other", other_ports=OTHERS if number == 1 else None),
            web(answering(), name="taken", problem="10.96.0.7:80 is in use" * (number == 1)),
        ]
        if number < 5:
            ports += [web(answering(), name="new"), web(answering(), name="missing")]
        else:
            ports.append(web(untried(), name="new", **QUIET))
        answers.append(answer_of(f"node-{number}", *ports, ignored=ignored))
    return all_of(*answers)


def make_unanswered() -> AllNodes:
    """Return Service ports with unanswered clients on some nodes but without a failed dial."""
    away = web(
        untried(state="not on this node", is_usable=False),
        name="local",
        cause=ON_OTHERS,
        is_dropping=True,
        turned_away=[ON_OTHERS.replace(count=7)],
        **QUIET,
    )
    late = answers_flows_late(POD).replace(when=When.PAST, count=9)
    slow = web(answering(cause=late, is_past=True), name="slow", protocol="UDP", refused=9)
    here = flows("dns"), web(answering(), name="local")
    elsewhere = flows("dns", unanswered=9), away
    return all_of(
        *(
            answer_of(f"node-{number}", flows("syslog", unanswered=12), slow, *others)
            for number, others in enumerate((here, elsewhere, elsewhere), 1)
        )
    )


def page() -> Iterator[str]:
    """Yield the lines of the whole page."""
    cases = [(name, merge(nodes_with(*endpoints))) for name, endpoints in SEEN.items()]
    for name in ("one node has tried", "both nodes fail", "one of many"):
        merged = merge(nodes_with(*SEEN[name], summaries=9))
        cases.append((f"{name}, and nine more don't say whether they have", merged))
    for name, merged in cases:
        (port,) = merged.ports
        yield f"{name}:"
        endpoint = next(one for one in port.endpoints if one.address == POD)
        yield f"  endpoint  {format_endpoint(endpoint)}"
        yield f"  port      {format_port(port, merged)}"
        for one in merged.incidents:
            yield f"  incident  {format_incident(one, NOW, len(merged.answered))}"
    for what, all_nodes in (
        ("ports", make_ports()),
        ("clients without an answer", make_unanswered()),
        ("a sick cluster", make_sick_cluster()),
    ):
        merged = merge(all_nodes)
        for form in (
            render_status(merged, columns=COLUMNS),
            render_status(merged, columns=COLUMNS, is_wide=True),
            render_nodes(merged, columns=COLUMNS),
            render_top(merged, merge(all_nodes), columns=COLUMNS),
        ):
            yield ""
            yield f"{what}:"
            yield from form.body.decode().splitlines()
    yield ""
    yield "a wrong port:"
    wrong = web(*(failing(refuses(f"10.1.2.{number}:80")) for number in range(9)), name="wrong")
    merged = merge(all_of(*(answer_of(f"node-{number}", wrong) for number in range(1, 4))))
    for one in merged.incidents:
        yield format_incident(one, NOW, len(merged.answered))
    yield format_port(merged.ports[0], merged)
    yield ""
    yield "no answer:"
    yield from render_status(merge(all_of(without_answer("a")))).body.decode().splitlines()


if __name__ == "__main__":
    WORDS.write_text("\n".join(page()) + "\n")
