import pytest

from userspace_proxy.causes.notes import (
    annotation_wrong,
    range_at_node,
    range_overlaps,
    range_without_node_port,
)
from userspace_proxy.causes.say import say
from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.model.annotations import DOMAIN
from userspace_proxy.status.missing import say_missing

from .views import make_calm_view, make_port, make_view

PORT_RANGES = f"{DOMAIN}port-ranges"


def test_a_nonexistent_service_is_reported_with_the_nearest_name():
    view = make_calm_view()
    assert say_missing(view, "shop/wbe") == "there is no Service shop/wbe (did you mean shop/web?)"
    assert say_missing(view, "shpo/web") == "there is no Service shpo/web; shop/web exists"
    assert say_missing(view, "x\n/y") == "there is no Service x\\n/y"


def test_the_error_for_a_nonexistent_service_mentions_unreadable_objects():
    lines = ("a.yaml:1: no port", "a.yaml:6: not YAML", "b.yaml:1: taken", "cannot read c.yaml")
    rejected = (
        RejectedFacts(lines[0], "Service shop/a"),
        RejectedFacts(lines[1]),
        RejectedFacts(lines[2], services=("shop/b",)),
    )
    source = SourceFacts(problems=lines, rejected=rejected)
    assert say_missing(make_view(make_port(), source=source), "shop/wbe") == (
        "there is no Service shop/wbe (did you mean shop/web?); not everything can be read: "
        "a.yaml:6: not YAML (and 1 more)"
    )


def test_the_most_likely_unreadable_file_is_named_for_a_nonexistent_service():
    places, whats = ("a.yaml:6", "shop/b-tau.yaml:9"), ("not YAML", "no mapping: tau")
    rejected = list(map(RejectedFacts.at, places, whats))
    source = SourceFacts(problems=[item.line for item in rejected], rejected=rejected)
    assert say_missing(make_view(source=source), "shop/tau") == (
        "there is no Service shop/tau; not everything can be read: shop/b-tau.yaml:9: no mapping: "
        "tau (and 1 more)"
    )


def test_the_name_of_a_rejected_service_is_suggested():
    line = "a.yaml:4: metadata.name: 'Upsilon_Web' is wrong"
    rejected = RejectedFacts(line, "Service y/Upsilon_Web", services=("y/Upsilon_Web",))
    source = SourceFacts(problems=(line,), rejected=(rejected,))
    assert say_missing(make_view(source=source), "y/upsilon").endswith(
        "(did you mean y/Upsilon_Web?)"
    )


def test_a_vaguely_similar_name_is_not_suggested_if_the_source_is_partly_unreadable():
    alike = "there is no Service shop/webbed"
    hint = " (did you mean shop/web?)"
    assert say_missing(make_view(make_port()), "shop/webbed") == alike + hint
    source = SourceFacts(problems=("a.yaml:6: not YAML",))
    assert say_missing(make_view(make_port(), source=source), "shop/webbed") == (
        f"{alike}; not everything can be read: a.yaml:6: not YAML"
    )


def test_an_unknown_port_is_reported_with_the_services_ports():
    view = make_view(make_port())
    assert say_missing(view, "shop/web:81") == "shop/web has no port 81; it has 80 (http)"


def test_equal_names_in_other_namespaces_are_suggested_before_similar_names():
    ports = [make_port("web", namespace=name) for name in ("a", "b", "c", "d", "e")]
    view = make_view(*ports[:2], make_port("webs", namespace="shop"))
    there_is = "there is no Service"
    assert say_missing(make_view(ports[0]), "shop/web") == f"{there_is} shop/web; a/web exists"
    assert say_missing(view, "shop/web:80") == (
        f"{there_is} shop/web:80; a/web and b/web exist (did you mean shop/webs?)"
    )
    assert say_missing(make_view(*ports), "shop/web") == (
        f"{there_is} shop/web; a/web, b/web, c/web and 2 more exist"
    )


def test_a_shared_namespace_does_not_make_names_similar():
    view = make_view(make_port("badnode", namespace="production"))
    assert say_missing(view, "production/nope") == "there is no Service production/nope"


def test_several_similar_services_are_suggested():
    view = make_view(make_port("web-1"), make_port("web-2"), make_port("db"))
    assert say_missing(view, "shop/web-3").endswith("(did you mean shop/web-2 or shop/web-1?)")


def test_a_nonexistent_service_named_like_a_namespace_suggests_the_namespace():
    view = make_view(make_port("web"))
    missing = "there is no Service default"
    assert say_missing(view, "default/shop") == f"{missing}/shop; shop is a namespace"
    assert say_missing(view, "default/shpo") == (
        f"{missing}/shpo (did you mean the namespace shop?)"
    )


@pytest.mark.parametrize(
    ("note", "wanted", "is_said"),
    [
        (range_at_node("http=80-90", "192.0.2.9", "this node"), "85", True),
        (range_overlaps("http=80-90", "api=70-99"), "90", True),
        (range_overlaps("http=80-90", "api=70-99"), "91", False),
        (range_overlaps("http=all", "api=all"), "91", True),
        (range_overlaps("http=all", "api=all"), "admin", False),
        (range_without_node_port("http=80-90", 30080), "85", False),
        (
            annotation_wrong(PORT_RANGES, "'http=90-80' is turned round", "it is ignored"),
            "85",
            True,
        ),
        (annotation_wrong(PORT_RANGES, "it is turned round", "it is ignored"), "admin", False),
        (range_overlaps("http=all", "api=all"), "9" * 5000, False),
        (range_at_node("unreadable", "192.0.2.9", "this node"), "85", False),
    ],
)
def test_a_missing_port_is_reported_with_a_mistake_in_its_possible_range(note, wanted, is_said):
    view = make_view(make_port(notes=(note,)))
    why = f": {say(note)}" if is_said else ""
    said = say_missing(view, f"shop/web:{wanted}")
    assert said == f"shop/web has no port {wanted}; it has 80 (http){why}"
