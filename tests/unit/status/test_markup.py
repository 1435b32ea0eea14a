from jinja2 import DictLoader
from markupsafe import Markup

from userspace_proxy.facts import Level
from userspace_proxy.status.markup import Parts, make_environment


def written(template, finalize=None, **content):
    loader = DictLoader({"one": template})
    return make_environment(loader, finalize).get_template("one").render(content)


def test_template_filters_format_figures():
    assert written("{{ n|count }}, {{ n|plural('node') }}, {{ 90|seconds }}", n=1) == (
        "1, 1 node, 1 min"
    )


def test_inserted_names_are_escaped():
    assert written("{{ name }}", name="<b>") == "&lt;b&gt;"


def test_a_template_finalizer_is_applied_to_every_inserted_value():
    assert written("{{ name }}", lambda value: str(value).upper(), name="a<b") == "A&lt;B"


def test_rendered_parts_are_inserted_into_a_template_without_escaping():
    parts = Parts("t", Level.OK, {"main": "<p>a</p>"}, "12:00:00")
    assert parts.markup == {"main": Markup("<p>a</p>")}
    assert written("{{ html.main }}", html=parts.markup) == "<p>a</p>"
