import pytest
from aiohttp import web
from multidict import MultiDict

from userspace_proxy.status.answer_form import SUMMARY_EVERY_S, AnswerForm

from .views import make_calm_view


def read(*query, **headers):
    return AnswerForm.read(MultiDict(query), headers)


def test_without_a_view_an_answer_is_whole():
    view = make_calm_view()
    assert read() == AnswerForm()
    assert read(("also", "shop/web")).of(view) is view


def test_a_summary_has_services_beside_what_is_not_ok():
    form = read(("view", "summary"), ("also", "shop/web"), ("also", "shop/db"))
    assert form.also == {"shop/web", "shop/db"}
    assert form.is_summary
    assert len(form.of(make_calm_view()).ports) < len(make_calm_view().ports)


def test_the_number_of_services_is_limited():
    many = (("also", f"shop/service-{number}") for number in range(1000))
    assert len(read(("view", "summary"), *many).also) == 100


def test_summaries_come_less_often_unless_asked_for():
    assert read(("view", "summary")).every_s == SUMMARY_EVERY_S
    assert read(("view", "summary"), ("every", "1")).every_s == 1
    assert read(("every", "10")).every_s == 10
    assert read().every_s is None


@pytest.mark.parametrize(
    "query",
    [
        ("every", "0"),
        ("every", "31"),
        ("every", "1.5"),
        ("every", "\u0663"),
        ("every", "9" * 5000),
        ("every", "00000000199"),
        ("every", ""),
        ("view", "page"),
    ],
)
def test_what_is_not_understood_is_refused(query):
    with pytest.raises(web.HTTPBadRequest):
        read(query)


def test_a_client_that_reads_gzip_gets_it():
    assert read(**{"Accept-Encoding": "gzip"}).is_gzip
