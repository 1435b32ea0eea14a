import io

import pytest

from userspace_proxy.cli.terminal import (
    COLUMNS_SHOWN,
    PrintableStream,
    add_colours,
    columns_of,
    fit,
    wants_colours,
    watch,
    write,
    write_line,
)

from .conftest import Terminal

TEXT = "node-a  2 Service ports\n  ✕ shop/a  refused\n  ✓ shop/b  ✓ served\n      note  ! x\n"


def test_marks_are_coloured_and_the_first_line_is_bold():
    assert add_colours(TEXT) == (
        "\x1b[1mnode-a  2 Service ports\x1b[0m\n"
        "  \x1b[31m✕\x1b[0m shop/a  refused\n"
        "  \x1b[32m✓\x1b[0m shop/b  ✓ served\n"
        "      note  ! x\n"
    )


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        pytest.param(Terminal(), {}, True, id="terminal"),
        pytest.param(Terminal(), {"NO_COLOR": ""}, True, id="empty-no-color"),
        pytest.param(Terminal(), {"NO_COLOR": "1"}, False, id="no-color"),
        pytest.param(Terminal(), {"TERM": "dumb"}, False, id="dumb"),
        pytest.param(io.StringIO(), {}, False, id="file"),
    ],
)
def test_only_output_to_a_terminal_is_coloured(stream, environment, expected):
    assert wants_colours(stream, environment) is expected


@pytest.mark.parametrize(
    ("stream", "environment", "expected"),
    [
        pytest.param(Terminal(), {}, 97, id="terminal"),
        pytest.param(Terminal(), {COLUMNS_SHOWN: "7"}, 40, id="narrow"),
        pytest.param(io.StringIO(), {COLUMNS_SHOWN: "90"}, 90, id="shown-by-another-program"),
        pytest.param(io.StringIO(), {}, 0, id="file"),
    ],
)
def test_line_width_is_limited_only_for_a_terminal(stream, environment, expected, monkeypatch):
    monkeypatch.setenv("COLUMNS", "97")
    assert columns_of(stream, environment) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        pytest.param({}, False, id="console"),
        pytest.param({"WT_SESSION": "1"}, True, id="windows-terminal"),
        pytest.param({"TERM": "xterm"}, True, id="git-bash"),
    ],
)
def test_a_windows_console_without_ansi_gets_plain_text(environment, expected, monkeypatch):
    monkeypatch.setattr("sys.platform", "win32")
    assert wants_colours(Terminal(), environment) is expected


def test_text_is_written_to_a_file_unchanged():
    stream = io.StringIO()
    write(stream, TEXT)
    assert stream.getvalue() == TEXT


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("aaaaaaaaaa\nb\nc\n", "aaaaaaaaaa\nb\nc", id="fits"),
        pytest.param("a\nb\nc\nd\n", "a\nb\n  … 2 more lines", id="too-long"),
        pytest.param("aaaaaaaaaaaaaaa\nb\nc\n", "aaaaaaaaaaaaaaa\n  … 2 more lines", id="wrapped"),
    ],
)
def test_lines_that_do_not_fit_the_screen_are_counted(text, expected):
    assert fit(text, 10, 4) == expected


class Wait:
    """A wait that raises KeyboardInterrupt at its last call, as Ctrl-C does."""

    def __init__(self, times):
        self.left = times

    def __call__(self, seconds):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()], ids=["file", "dumb-terminal"])
def test_watch_appends_each_text_without_a_terminal(stream):
    texts = iter(["one\n", "two\n"])
    with pytest.raises(KeyboardInterrupt):
        watch(lambda: next(texts), stream, wait=Wait(2), environment={"TERM": "dumb"})
    assert stream.getvalue() == "one\ntwo\n"


def test_a_terminal_shows_each_text_in_place_and_restores_its_screen():
    stream, texts = Terminal(), iter(["one\ntwo\n", "three\n"])
    with pytest.raises(KeyboardInterrupt):
        watch(lambda: next(texts), stream, wait=Wait(2), environment={})
    sent = stream.getvalue()
    assert sent.startswith(
        "\x1b[?1049h\x1b[?25l\x1b[H\x1b[1mone\x1b[0m\x1b[K\ntwo\x1b[K\x1b[J\x1b[H"
    )
    assert sent.endswith("three\x1b[0m\x1b[K\x1b[J\x1b[?25h\x1b[?1049l")


HOSTILE = "a\tb\n  ✕ x\x1b]52;c;eA==\x07\x9b2J\u202e\n"
ESCAPED = "a\tb\n  ✕ x\\u001b]52;c;eA==\\u0007\\u009b2J\\u202e\n"


def test_unprintable_characters_in_output_are_escaped():
    stream = io.StringIO()
    print(HOSTILE, end="", file=PrintableStream(stream))
    PrintableStream(stream).writelines([HOSTILE])
    assert stream.getvalue() == ESCAPED * 2


@pytest.mark.parametrize("wrap", [PrintableStream, lambda stream: stream], ids=["edge", "bare"])
def test_colours_survive_escaping(wrap):
    terminal = Terminal()
    write(wrap(terminal), HOSTILE)
    assert terminal.getvalue() == add_colours(ESCAPED)
    assert "\x1b[31m✕" in terminal.getvalue()


def test_write_line_does_not_print_the_first_line_in_bold():
    terminal = Terminal()
    write_line(PrintableStream(terminal), "  ✕ \x1b[2J")
    assert terminal.getvalue() == "  \x1b[31m✕\x1b[0m \\u001b[2J\n"


def test_a_watched_screen_is_escaped():
    class End(Exception):
        pass

    def end(_seconds):
        raise End

    terminal = Terminal()
    with pytest.raises(End):
        watch(lambda: HOSTILE, PrintableStream(terminal), wait=end, environment={"TERM": "xterm"})
    shown = terminal.getvalue()
    assert shown.startswith("\x1b[?1049h")
    assert "\x1b]52" not in shown
    assert "\\u001b]52" in shown
