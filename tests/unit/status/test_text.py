import re
import time

import pytest

from userspace_proxy.causes.endpoints import refuses, sends_nothing
from userspace_proxy.causes.say import Form, kubectl_words, say
from userspace_proxy.causes.services import source_denied
from userspace_proxy.diagnosis.clauses import none_answers
from userspace_proxy.diagnosis.incidents import Incidents
from userspace_proxy.diagnosis.paths import PathView, format_counted
from userspace_proxy.facts import (
    Level,
    SourceFacts,
    SteeringState,
)
from userspace_proxy.model import DataPath, Taken
from userspace_proxy.status.history import History
from userspace_proxy.status.selection import Selection
from userspace_proxy.status.text import prefers_text, render_text, render_top

from .recorded import changed
from .views import (
    NOW,
    make_calm_view,
    make_endpoint,
    make_ignored,
    make_port,
    make_troubled_view,
    make_two_sides,
    make_view,
    replace,
)


def lines_of(view, **options):
    return render_text(view, now=NOW, **options).body.decode().splitlines()


def test_wide_output_shows_the_version_commit_and_flags():
    view = make_view(commit="0123456789ab")
    runs = "userspace-proxy 0.1.0 (commit 0123456789ab)"
    view.config = ()
    assert lines_of(view, is_wide=True)[1] == runs
    view.config = (("steering", "local", "flag"),)
    assert lines_of(view, is_wide=True)[1] == f"{runs}, run with the defaults"
    view.given = "--steering=local"
    assert lines_of(view, is_wide=True)[1] == f"{runs}, run with --steering=local"
    assert runs not in "".join(lines_of(view))


@pytest.mark.parametrize(
    ("view", "level"),
    [
        pytest.param(make_calm_view(), Level.OK, id="calm"),
        pytest.param(make_view(*make_two_sides()), Level.OK, id="dropped-by-design"),
        pytest.param(make_troubled_view(), Level.TROUBLE, id="trouble"),
        pytest.param(make_view(make_port(endpoints=())), Level.ATTENTION, id="attention"),
        pytest.param(
            make_view(steering=SteeringState("local", problem="no route")),
            Level.TROUBLE,
            id="node-only",
        ),
        pytest.param(
            make_view(ignored=(make_ignored("a/b", "", "taken", is_conflict=True),)),
            Level.TROUBLE,
            id="address-taken",
        ),
    ],
)
def test_the_overall_level_is_the_worst_of_all_lines(view, level):
    assert render_text(view, now=NOW).level == level


@pytest.mark.parametrize(
    ("count", "is_wide", "shown", "last"),
    [
        (4, False, 4, "Source: m/shop.yaml:3: no"),
        (10, False, 4, "and 7 more problems: wide output lists them"),
        (10, True, 10, "Source: m/shop.yaml:9: no"),
    ],
)
def test_over_four_node_problems_with_one_remedy_are_cut_unless_wide(count, is_wide, shown, last):
    problems = [f"m/shop.yaml:{line}: no" for line in range(count)]
    source = SourceFacts("manifests", "m", is_synced=True, problems=problems)
    view = make_view(make_port(), source=source)
    lines = [line for line in lines_of(view, is_wide=is_wide) if line.startswith("  ✕ node")]
    assert len(lines) == shown
    assert [line.endswith("is applied)") for line in lines] == [True, *[False] * (shown - 1)]
    assert lines[-1].endswith(last)


def test_the_node_part_can_be_omitted():
    view = make_view(make_port(), steering=SteeringState("local", problem="no route"))
    answer = render_text(view, now=NOW, has_node=False)
    assert (answer.level, b"no route" in answer.body) == (Level.OK, False)


def test_a_service_whose_address_is_in_use_is_listed_even_without_the_node_part():
    view = make_view(ignored=(make_ignored("shop/b", "", "held by shop/a", is_conflict=True),))
    (line,) = lines_of(view)[1:]
    assert lines_of(view, has_node=False)[1:] == [line]
    assert line.split() == ["✕", "shop/b", "Not", "served:", "held", "by", "shop/a"]


def test_terminal_control_characters_are_escaped():
    lines = lines_of(make_view(make_port(problem="\x1b[2J\ud800")))
    assert lines[1].endswith("Not served: \\u001b[2J\\ud800")


def test_before_the_first_plan_the_header_states_that_no_plan_is_applied_yet():
    view = make_view()
    view = replace(view, sync=replace(view.sync, last_done=0.0), node="")
    assert lines_of(view)[0] == "this node  nftables  0 Service ports  plan not applied yet, 0 open"


def test_the_header_counts_ports_that_another_programs_chain_may_take():
    doubt = Taken("x may drop it", "", "ip x", is_certain=False)
    header, *_ = lines_of(make_view(make_port(perhaps_taken=doubt)))
    assert "  1 Service port, 1 may lose packets to other programs' rules  " in header


COUNTS = re.compile(r", [\d.,]+ (connections?|flows?|[kMGT]?B)\b")
LONG = "cannot listen on 10.96.7.97:80, because it is in use by nginx (pid 7) of a user"


@pytest.mark.parametrize("columns", [40, 80, 100])
def test_lines_fit_the_terminal_without_losing_words(columns):
    view = make_troubled_view()
    for options in ({}, {"is_wide": True}):
        lines = lines_of(view, columns=columns, **options)
        long = [line for line in lines if len(line) > columns]
        # A name, an address or a figure is never broken.
        assert not [line for line in long if line[-1] not in "0123456789"]
        whole = " ".join("\n".join(lines_of(view, **options)).split())
        shown = " ".join("\n".join(lines).split())
        assert COUNTS.sub("", shown) == COUNTS.sub("", whole)


def test_counts_are_dropped_and_names_are_kept_on_a_narrow_terminal():
    long = make_port("recommendations", namespace="ml-training-and-inference")
    view = make_view(make_port("cart"), long)
    assert lines_of(view, columns=80)[1:] == [
        "  ✓ ml-training-and-inference/recommendations:http",
        "                    10.96.7.8:80   2 of 2  12 open, 36,407 connections, 2.5 GB",
        "  ✓ shop/cart:http  10.96.7.26:80  2 of 2  12 open, 36,407 connections, 2.5 GB",
    ]
    view = make_view(make_port("a-service-of-this-shop"), make_port("cart"))
    assert lines_of(view, columns=80)[1:] == [
        "  ✓ shop/a-service-of-this-shop:http  10.96.7.125:80  2 of 2  12 open",
        "  ✓ shop/cart:http                    10.96.7.26:80   2 of 2  12 open",
    ]


@pytest.mark.parametrize(
    ("q", "words"),
    [
        ("shp", "No Service port matches shp"),
        ("10.96.0.77", "No served Service has the address 10.96.0.77, nor an endpoint"),
        ("[fd00::7]:80", "No served Service has the address [fd00::7]:80, nor an endpoint"),
    ],
)
def test_a_search_without_a_match_is_reported(q, words):
    selection = Selection(q=q)
    top = render_top(make_calm_view(), selection=selection, history=History())
    for lines in (lines_of(make_calm_view(), selection=selection), top.body.decode().splitlines()):
        assert lines[1:] == [f"  {words}"]
    assert len(lines_of(make_view())) == 1


def test_a_long_cause_wraps_in_its_column_or_below():
    view = make_view(make_port("a", problem=LONG), make_port("a-name-that-leaves-no-room"))
    assert lines_of(view, columns=90, has_node=False)[1:3] == [
        "  ✕ shop/a:http  10.96.7.97:80  2 of 2  Not served: cannot listen on 10.96.7.97:80,",
        f"{' ' * 40}because it is in use by nginx (pid 7) of a user",
    ]
    assert lines_of(view, columns=60, has_node=False)[2:5] == [
        "  ✕ shop/a:http  10.96.7.97:80  2 of 2",
        "      Not served: cannot listen on 10.96.7.97:80, because it",
        "      is in use by nginx (pid 7) of a user",
    ]


def test_top_fits_the_terminal_and_a_long_name_has_its_own_line():
    ports = make_port("web"), make_port("metrics-server-for-the-shop")
    top = render_top(
        make_view(*ports), selection=Selection(), history=busy_history(*ports), columns=80
    )
    lines = top.body.decode().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2] == "  ✓ shop/metrics-server-for-the-shop:http"
    assert lines[3].split() == ["2", "of", "2", "12", "0", "0", "B", "0", "B", "0", "0"]
    assert lines[4].startswith("  ✓ shop/web:http ")
    assert [line.rindex(" of ") for line in lines[3:]] == [lines[3].index(" of ")] * 2


def busy_history(*ports):
    """Return a history in which the first port has 20 connections in two seconds."""
    history = History()
    history.note(ports, 10.0)
    first = ports[0]
    more = replace(
        first,
        connections=first.connections + 20,
        received_bytes=first.received_bytes + 4_000,
        sent_bytes=first.sent_bytes + 1_000_000,
    )
    history.note([more, *ports[1:]], 12.0)
    return history


def test_top_shows_no_rates_before_the_second_sample():
    top = render_top(make_view(make_port()), selection=Selection(), history=History())
    assert top.body.decode().splitlines()[2].split()[5:] == ["12", "-", "-", "-", "-", "-"]


def test_top_shows_at_most_two_hundred_rows():
    ports = [make_port(f"s{n}") for n in range(203)]
    top = render_top(make_view(*ports), selection=Selection(), history=History())
    lines = top.body.decode().splitlines()
    assert (len(lines), lines[-1]) == (203, "    and 3 more")


@pytest.mark.parametrize(
    ("accept", "agent", "expected"),
    [
        pytest.param("*/*", "curl/8.5.0", True, id="curl"),
        pytest.param("*/*", "Wget/1.21", True, id="wget"),
        pytest.param("text/plain", "Mozilla/5.0", True, id="asked-for"),
        pytest.param("text/html", "curl/8.5.0", False, id="curl-asks-for-html"),
        pytest.param("text/html,*/*;q=0.8", "Mozilla/5.0", False, id="browser"),
        pytest.param("*/*", "Mozilla/5.0", False, id="other"),
    ],
)
def test_terminals_get_text_and_browsers_get_the_page(accept, agent, expected):
    assert prefers_text(accept, agent) is expected


def test_kernel_path_connections_of_local_programs_are_shown():
    path = PathView(DataPath.KERNEL, NOW - 180, "it is asked for", 1_200, 34)
    port = make_port(active=2, connections=34, received_bytes=0, sent_bytes=0)
    port = replace(port, path=path)
    shown = lines_of(make_view(port), is_wide=True)
    assert shown[2].endswith("on the kernel path, 1,234 connections")
    at = shown.index("      path      kernel for 3 min: it is asked for")
    assert shown[at + 1] == f"{' ' * 16}{format_counted(port)}"
    shown = "\n".join(lines_of(make_view(replace(port, sent_bytes=500)), is_wide=True))
    assert "2 open, 34 connections, 500 B, 1,200 connections by rules" in shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        pytest.param({}, "12 open, 36,407 connections, 2.5 GB", id="userspace"),
        pytest.param({"path": PathView(DataPath.KERNEL)}, "on the kernel path", id="kernel"),
    ],
)
def test_denied_clients_are_shown_in_the_line_of_a_served_port(changes, words):
    denied = source_denied(("198.51.100.0/24",)).replace(count=213, last_at=NOW - 2)
    port = replace(make_port(turned_away=(denied,)), **changes)
    assert lines_of(make_view(port))[1].endswith(
        f"{words}; {say(denied)} (213 times, last 2 s ago)"
    )


DEAD = refuses("10.244.0.9:8080").replace(count=2, first_at=NOW - 900, last_at=NOW - 2)


def make_broken_view(*more, dead=35, calm=285):
    """Return a node on which one dead endpoint fails the clients of many Services."""
    endpoints = (
        make_endpoint("10.244.0.9:8080", pod="broken-x", cause=DEAD),
        make_endpoint("10.244.1.1:8080"),
    )
    broken = [make_port(f"broken-{number}", endpoints=endpoints) for number in range(dead)]
    return make_view(*broken, *(make_port(f"calm-{number}") for number in range(calm)), *more)


def test_a_cause_shared_by_many_services_is_printed_once_on_the_first_screen():
    lines = lines_of(make_broken_view(), columns=80)
    assert "320 Service ports, 35 need attention" in lines[0]
    at = next(n for n, line in enumerate(lines) if line.startswith("  ! "))
    assert at < 24
    since = time.strftime("%H:%M", time.localtime(NOW - 900))
    assert lines[at : at + 4] == [
        f"  ! {say(DEAD, Form.SHORT)}: 35 Services, since {since}",
        "      shop/broken-0, shop/broken-1, shop/broken-10, shop/broken-11 and 31 more",
        "      Seen 70 times, last 2 s ago",
        f"      kubectl {kubectl_words(DEAD, 'shop/broken-0', 'broken-x')}",
    ]
    assert max(map(len, lines)) <= 80
    assert sum("refuses" in line for line in lines) == 1
    rows = [line for line in lines if "shop/broken" in line][1:]
    assert len(rows) == 35
    assert all(row.endswith("  1 of 2  Partly answering") for row in rows)


def test_a_service_shows_its_own_cause_beside_a_shared_cause():
    other = sends_nothing("10.244.0.7:8080")
    endpoints = tuple(make_endpoint(str(one.get("at")), cause=one) for one in (DEAD, other))
    lines = lines_of(make_broken_view(make_port("both", endpoints=endpoints), calm=0))
    (row,) = [line for line in lines if line.split()[1] == "shop/both:http"]
    assert f"{none_answers(2, is_past=False).text}; {say(other, Form.SHORT)}" in row
    assert "10.244.0.9" not in row


def test_a_cause_within_a_selection_counts_all_affected_services():
    view = make_broken_view()
    part = view.part(view.ports[:2], (), ())
    whole = Incidents(view)
    lines = lines_of(part, has_node=False, incidents=whole)
    assert "35 Services" in lines[1]
    assert lines_of(part.part(view.ports[:1], (), ()), incidents=whole)[1].startswith("  ! shop/")


def test_wide_output_lists_all_shared_causes_and_their_remedies():
    causes = [refuses(f"10.244.0.{number}:80") for number in range(7)]
    endpoints = tuple(make_endpoint(str(one.get("at")), cause=one) for one in causes)
    view = make_view(*(make_port(name, endpoints=endpoints) for name in ("a", "b")))
    lines = lines_of(view)
    assert sum(line.endswith(": 2 Services") for line in lines) == 5
    assert "    and 2 more causes of several Services: wide output lists them" in lines
    wide = lines_of(view, is_wide=True)
    assert sum(line.endswith(": 2 Services") for line in wide) == 7
    assert sum(line.startswith("      -> ") for line in wide) == 7


def test_text_and_top_match_the_recorded_text(tmp_path):
    assert changed(tmp_path, "text", "top") == []
