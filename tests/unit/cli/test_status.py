import io
import json

import pytest

from tests.unit.port_numbers import free_port
from tests.unit.status.views import (
    make_calm_view,
    make_endpoint,
    make_ignored,
    make_port,
    make_troubled_view,
    make_view,
)
from userspace_proxy.causes.endpoints import refuses
from userspace_proxy.cli import main, status
from userspace_proxy.cli.admin import AdminAddress, AdminAnswer
from userspace_proxy.cli.status import show_now
from userspace_proxy.cli.terminal import COLUMNS_SHOWN
from userspace_proxy.facts import RejectedFacts, SourceFacts
from userspace_proxy.facts.node import ObjectKey

LONG = "none of its 2 endpoints answers; no route to 10.244.0.9: that address does not exist"


@pytest.mark.parametrize(
    ("view", "words", "status"),
    [
        (make_calm_view(), [], 0),
        (make_troubled_view(), [], 3),
        (make_troubled_view(), ["shop/web"], 0),
        (make_troubled_view(), ["shop/cart"], 3),
        (make_calm_view(), ["shop/db"], 0),
        (make_view(ignored=(make_ignored("shop/b", "", "held", is_conflict=True),)), ["shop/b"], 3),
    ],
)
@pytest.mark.parametrize("form", ["text", "wide", "json"])
def test_the_exit_status_reports_whether_something_needs_attention(
    view, words, status, form, serve_view, capsys
):
    assert main(["status", *words, "-o", form, serve_view(view)]) == status
    assert capsys.readouterr().out


@pytest.mark.parametrize("words", [["status"], ["status", "-o", "wide"], ["top"]])
def test_lines_of_status_and_top_fit_the_terminal_width(words, serve_view, capsys, monkeypatch):
    server = serve_view(make_view(make_port("web", problem=LONG), make_port("a" * 25)))
    main([*words, server])
    assert max(map(len, capsys.readouterr().out.splitlines())) > 90
    monkeypatch.setenv(COLUMNS_SHOWN, "80")
    main([*words, server])
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_suggested_commands_query_the_same_proxy(serve_view, capsys):
    at = "10.244.0.9:8080"
    dead = (make_endpoint(at, cause=refuses(at)),)
    ports = [make_port(name, endpoints=dead) for name in ("a", "b")]
    server = serve_view(make_view(*ports, source=SourceFacts("manifests", "services/")))
    main(["status", server])
    (command,) = (
        line.strip() for line in capsys.readouterr().out.splitlines() if " explain " in line
    )
    assert command == f"userspace-proxy explain shop/a --probe {server}"


def test_json_output_contains_the_proxys_ports_of_the_service(serve_view, capsys):
    main(["status", "shop/web", "-o", "json", serve_view(make_calm_view())])
    ports = json.loads(capsys.readouterr().out)["ports"]
    assert [(port["service"], port["family"]) for port in ports] == [
        ("web", "IPv4"),
        ("web", "IPv6"),
    ]


@pytest.mark.parametrize("words", [["shop"], ["-n", "shop"]])
def test_a_namespace_limits_the_status_of_the_node(words, serve_view, capsys):
    cart = make_port("cart", namespace="cart", problem="a program has the port")
    source = SourceFacts(problems=("cannot watch Services",))
    view = make_view(make_port("web"), cart, source=source)
    assert main(["status", *words, serve_view(view)]) == 3
    out = capsys.readouterr().out
    assert "1 Service port  " in out
    assert "cannot watch Services" in out
    assert "endpoint  " not in out
    server = serve_view(make_view(make_port("web"), cart))
    for form in ("text", "json"):
        assert main(["status", *words, "-o", form, server]) == 0


def test_a_name_existing_only_in_another_namespace_is_suggested(serve_view, capsys):
    assert main(["status", "web", serve_view(make_view(make_port("web")))]) == 1
    error = "error: there is no Service default/web; shop/web exists\n"
    assert capsys.readouterr().err == error


def test_top_shows_a_single_namespace_or_service(serve_view, capsys):
    server = serve_view(make_view(make_port("web"), make_port("db", namespace="cart")))
    for words in (["shop"], ["-n", "shop"], ["svc/web", "-n", "shop"]):
        assert main(["top", *words, server]) == 0
        assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[2:]] == [
            "shop/web:http"
        ]


def test_a_nonexistent_service_is_reported_in_one_line_with_status_1(serve_view, capsys):
    assert main(["status", "shop/wbe", serve_view(make_calm_view())]) == 1
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: there is no Service shop/wbe (did you mean shop/web?)\n")


class Watched(io.StringIO):
    """An output stream that simulates Ctrl-C once a text was printed a number of times."""

    def __init__(self, text, count=1, *, is_terminal=False):
        super().__init__()
        self.text, self.count, self.is_terminal = text, count, is_terminal

    def isatty(self):
        return self.is_terminal

    def flush(self):
        if self.count and self.getvalue().count(self.text) >= self.count:
            self.count = 0
            raise KeyboardInterrupt


class Changing:
    """Returns a calm view twice, and one with problems from the third call on."""

    def __init__(self):
        self.asked = 0

    def __call__(self):
        self.asked += 1
        return make_calm_view() if self.asked < 3 else make_troubled_view()


def test_watching_shows_changes_until_ctrl_c(serve_view, monkeypatch):
    monkeypatch.setattr("sys.stdout", out := Watched("10 Service ports, 6 need attention"))
    assert main(["status", "--watch", serve_view(Changing())]) == 0
    assert "4 Service ports  plan" in out.getvalue().partition(out.text)[0]


def test_top_shows_rates_until_ctrl_c(serve_view, monkeypatch):
    out = Watched("SERVICE PORT", 3, is_terminal=True)
    monkeypatch.setattr("sys.stdout", out)
    assert main(["top", serve_view(make_calm_view())]) == 0
    assert "shop/web:http" in out.getvalue()


def test_top_prints_rates_once_without_a_terminal(serve_view, capsys):
    assert main(["top", "--sort=name", serve_view(make_calm_view())]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == [
        "SERVICE", "PORT", "ENDPOINTS", "OPEN", "CONN/S", "IN/S", "OUT/S", "SAVED/S", "FAILED/S",
    ]  # fmt: skip
    assert [line.split()[1] for line in lines[2:5]] == [
        "kube-system/kube-dns:dns", "shop/shop-front:http", "shop/web:http",
    ]  # fmt: skip
    assert lines[2].split()[5] != "-"


@pytest.mark.parametrize("command", ["top", "status"])
def test_watch_fails_immediately_if_no_proxy_responds(command, capsys):
    words = [command, f"--server=:{free_port()}", *(["-w"] if command == "status" else [])]
    assert main(words) == 1
    assert "no userspace-proxy answers" in capsys.readouterr().err


def test_watch_continues_while_no_proxy_responds():
    admin = AdminAddress("127.0.0.1", free_port())
    shown = show_now(lambda: admin.get("/", accept="text/plain"))
    assert shown.startswith("no userspace-proxy answers")


def test_an_invalid_switch_is_rejected_before_the_proxy_is_queried(capsys):
    for command in (["status", "--watch=maybe"], ["explain", "shop/web", "--probe=maybe"]):
        assert main([*command, f"--server=:{free_port()}"]) == 2
        assert "'maybe'" in capsys.readouterr().err


def test_json_output_for_a_rejected_service_exits_with_status_3(serve_view, capsys):
    key, services = ObjectKey("Service", "shop", "typo"), ("shop/typo", "shop/db")
    typo = RejectedFacts.at("z.yaml:5", "spec.prots: unknown field", key, services)
    source = SourceFacts("manifests", "/m", problems=(typo.line,), rejected=(typo,))
    server = serve_view(make_view(make_port(), make_port("db"), source=source))
    for name in ("shop/typo", "shop/db", "shop/db:http"):
        assert main(["status", name, "-o", "json", server]) == 3
    assert main(["status", "shop/web", "-o", "json", server]) == 0
    assert typo.line in capsys.readouterr().out


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_search_limits_the_exit_status_to_its_matches(form, serve_view):
    server = serve_view(make_troubled_view())
    assert main(["status", "-o", form, "-q", "is:served name:web", server]) == 0
    assert main(["status", "-o", form, "--search=is:refused", server]) == 3


@pytest.mark.parametrize("command", ["status", "status -o json", "top"])
def test_searching_for_an_unknown_state_is_a_usage_error(command, serve_view, capsys):
    assert main([*command.split(), "-q", "is:refusd", serve_view(make_calm_view())]) == 2
    assert capsys.readouterr().err == (
        "error: --search: there is no state is:refusd (did you mean is:refused?)\n"
    )


@pytest.mark.parametrize("words", [["status"], ["status", "-o", "json"], ["top"]])
def test_terminal_control_characters_in_a_response_are_escaped(words, monkeypatch, capsys):
    body = '{"level": "ok", "note": "\x1b]52;c;eA==\x07\x9b2J\u202e\udce9"}'
    answer = AdminAnswer(body.encode("utf-8", "surrogateescape"), "ok")
    monkeypatch.setattr(AdminAddress, "get", lambda *_args, **_query: answer)
    monkeypatch.setattr(status, "EVERY_S", 0.0)
    monkeypatch.setattr(status.json, "loads", lambda _body: {"level": "ok"})
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.removesuffix("\n").isprintable()
    assert r"\u001b]52;c;eA==\u0007\u009b2J\u202e" in out
