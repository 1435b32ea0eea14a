from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.status.missing import say_missing

from .views import make_calm_view, make_port, make_view


def test_a_missing_service_is_named_with_its_nearest_name():
    view = make_calm_view()
    assert say_missing(view, "shop/wbe") == "there is no Service shop/wbe (did you mean shop/web?)"
    assert say_missing(view, "shpo/web").endswith("(did you mean shop/web?)")
    assert say_missing(view, "x\n/y") == "there is no Service x\\n/y"


def test_a_missing_service_may_be_in_what_cannot_be_read():
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


def test_of_several_files_that_cannot_be_read_that_with_its_name_is_the_likeliest():
    places, whats = ("a.yaml:6", "shop/b-tau.yaml:9"), ("not YAML", "no mapping: tau")
    rejected = list(map(RejectedFacts.at, places, whats))
    source = SourceFacts(problems=[item.line for item in rejected], rejected=rejected)
    assert say_missing(make_view(source=source), "shop/tau") == (
        "there is no Service shop/tau; not everything can be read: shop/b-tau.yaml:9: no mapping: "
        "tau (and 1 more)"
    )


def test_a_service_that_is_rejected_may_be_the_one_that_was_meant():
    line = "a.yaml:4: metadata.name: 'Upsilon_Web' is not a DNS name"
    rejected = RejectedFacts(line, "Service y/Upsilon_Web", services=("y/Upsilon_Web",))
    source = SourceFacts(problems=(line,), rejected=(rejected,))
    assert say_missing(make_view(source=source), "y/upsilon").endswith(
        "(did you mean y/Upsilon_Web?)"
    )


def test_a_name_that_is_only_alike_is_no_hint_where_the_service_may_be_in_what_cannot_be_read():
    alike = "there is no Service shop/weekly"
    hint = " (did you mean shop/web?)"
    assert say_missing(make_view(make_port()), "shop/weekly") == alike + hint
    source = SourceFacts(problems=("a.yaml:6: not YAML",))
    assert say_missing(make_view(make_port(), source=source), "shop/weekly") == (
        f"{alike}; not everything can be read: a.yaml:6: not YAML"
    )


def test_a_port_that_a_service_does_not_have_is_answered_with_those_that_it_has():
    view = make_view(make_port())
    assert say_missing(view, "shop/web:81") == "shop/web has no port 81; it has http"
