import pytest

from userspace_proxy.causes.services import unsupported_protocol
from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.model import PortKey, Taken
from userspace_proxy.status.history import History
from userspace_proxy.status.selection import SORTS, Selection, part_of, row_id, select

from .views import make_frontend, make_ignored, make_port, make_view, replace

CART = make_port(
    "cart",
    endpoints=(),
    reason="it has no endpoints",
    frontends=(make_frontend("10.96.7.9:80", "ClusterIP", "refused"),),
    refused=9,
    active=0,
)
WEB = make_port(
    "web",
    frontends=(make_frontend("10.96.7.114:80", "ClusterIP", "proxy port 20001"),),
    active=1,
    saved=4,
)
DNS = make_port(
    "kube-dns",
    namespace="kube-system",
    port="dns",
    frontends=(make_frontend("10.96.7.10:53", "ClusterIP", "proxy port 20002"),),
    active=5,
)
DB = make_ignored("shop/db", "", "it is headless")
MEDIA = make_ignored("voice/media", "rtp", unsupported_protocol("SCTP"))
VIEW = make_view(WEB, CART, DNS, ignored=(MEDIA, DB))


def names(history=None, **selection):
    chosen = select(VIEW, Selection(**selection), history or History())
    return [one.service for one in chosen.ports]


def test_invalid_objects_are_shown_only_in_a_search():
    item = RejectedFacts.at("m.yaml:171", "spec: expected mapping", services=("shop/db",))
    view = make_view(WEB, source=SourceFacts(problems=(item.line,), rejected=(item,)))
    assert select(view, Selection(q="service:shop/db")).rejected == (item,)
    assert select(view, Selection(q="web")).rejected == ()
    assert select(view, Selection()).rejected == ()


def test_rows_are_sorted_by_problem_first_then_by_doubts_about_chains_then_by_name():
    assert names() == ["cart", "kube-dns", "web"]
    doubt = Taken("x may drop it", "", "ip x", is_certain=False)
    view = make_view(*VIEW.ports, make_port("zoo", perhaps_taken=doubt))
    assert [one.service for one in select(view, Selection()).ports][:2] == ["cart", "zoo"]


@pytest.mark.parametrize(
    ("sort", "expected"),
    [
        pytest.param("name", ["kube-dns", "cart", "web"], id="name"),
        pytest.param("-endpoints", ["kube-dns", "web", "cart"], id="endpoints"),
        pytest.param("-open", ["kube-dns", "web", "cart"], id="open"),
        pytest.param("open", ["cart", "web", "kube-dns"], id="ascending"),
        pytest.param("-failed", ["cart", "kube-dns", "web"], id="failed"),
        pytest.param("-saved", ["web", "kube-dns", "cart"], id="saved"),
        pytest.param("address", ["cart", "kube-dns", "web"], id="numbers-of-an-address"),
    ],
)
def test_rows_can_be_sorted_by_each_column(sort, expected):
    assert names(sort=sort) == expected


@pytest.mark.parametrize(
    ("sort", "field"), [("-rate", "connections"), ("-in", "received_bytes"), ("-out", "sent_bytes")]
)
def test_rows_can_be_sorted_by_rate(sort, field):
    history = History()
    history.note((WEB, CART, DNS), 100.0)
    more = replace(WEB, **{field: getattr(WEB, field) + 100})
    history.note((more, CART, DNS), 101.0)
    assert names(history, sort=sort)[0] == "web"


def test_the_search_applies_to_ports_and_ignored_services():
    assert names(q="web") == ["web"]
    assert select(VIEW, Selection()).ignored == (DB, MEDIA)
    assert select(VIEW, Selection(q="media:rtp")).ignored == (MEDIA,)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param({}, Selection(), id="nothing"),
        pytest.param(
            {"q": " web ", "sort": "-rate", "page": "3", "refresh": "off", "open": "pa,pb,pa"},
            Selection("web", "-rate", 3, ("pa", "pb"), refresh=False),
            id="all-parameters",
        ),
        pytest.param({"page": "-1", "sort": "x", "refresh": "x"}, Selection(), id="invalid-values"),
        pytest.param({"page": "٣"}, Selection(), id="other-digits"),
        pytest.param({"page": "9" * 5000}, Selection(), id="huge-page"),
        pytest.param({"page": "0"}, Selection(), id="page-zero"),
        pytest.param({"q": "a" * 5000}, Selection("a" * 200), id="huge-search"),
        pytest.param({"open": '"><script>'}, Selection(), id="no-id"),
    ],
)
def test_a_query_is_parsed_without_invalid_values_and_with_a_truncated_search(query, expected):
    assert Selection.parse(query) == expected


def test_at_most_a_page_of_rows_is_expanded():
    many = ",".join(f"p{n}" for n in range(5000))
    assert len(Selection.parse({"open": many}).open) == 100


def test_links_on_the_page_preserve_the_other_query_parameters():
    selection = Selection("a&b", "-rate", 3, ("pa",), refresh=False)
    assert selection.link() == "./?q=a%26b&sort=-rate&page=3&open=pa&refresh=off"
    assert selection.link(page=4) == "./?q=a%26b&sort=-rate&page=4&open=pa&refresh=off"
    assert Selection().link() == "./"
    assert Selection().link(q="\ud800") == "./?q=%3F"


def test_a_full_page_is_followed_by_no_empty_page():
    assert [part_of(range(count), 1, 10).pages for count in (0, 10, 11)] == [1, 1, 2]


def test_a_row_can_be_expanded_and_collapsed():
    assert Selection(open=("pb",)).toggled("pa") == "./?open=pb,pa"
    assert Selection(open=("pa", "pb")).toggled("pa") == "./?open=pb"


@pytest.mark.parametrize(
    ("sort", "column", "expected"),
    [
        pytest.param("state", "rate", "./?sort=-rate", id="figures-from-the-largest"),
        pytest.param("-rate", "rate", "./?sort=rate", id="the-other-direction"),
        pytest.param("rate", "rate", "./?sort=-rate", id="and-back"),
        pytest.param("-rate", "name", "./?sort=name", id="names-from-the-first"),
        pytest.param("name", "name", "./?sort=-name", id="names-from-the-last"),
    ],
)
def test_the_link_of_a_column_sorts_by_it_or_reverses_its_direction(sort, column, expected):
    assert Selection(sort=sort, page=3).sorted_by(column) == expected


def test_sorting_by_any_column_in_either_direction_keeps_all_rows():
    for column in SORTS:
        assert sorted(names(sort=column)) == sorted(names(sort=f"-{column}"))


def test_rows_have_unique_and_stable_ids():
    keys = [port.plan.key for port in VIEW.ports]
    assert len({row_id(key) for key in keys}) == 3
    assert row_id(WEB.plan.key) == row_id(PortKey(*WEB.plan.key))
    assert row_id(make_port("\ud800").plan.key).isalnum()
