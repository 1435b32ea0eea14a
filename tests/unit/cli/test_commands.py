import io
import logging
import os
import subprocess
import sys

import pytest

from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS
from userspace_proxy.cli.plugin_commands import all_commands
from userspace_proxy.errors import ConfigError, SteeringError
from userspace_proxy.version import __version__, format_version, own_commit

VERSION = format_version(__version__, own_commit())
ALL = ", ".join(all_commands(COMMANDS))


@pytest.mark.parametrize(
    ("words", "port"),
    [(["demo"], None), (["demo", "--port=8080"], "8080"), (["demo", "--port", "0"], "0")],
)
def test_the_port_flag_is_passed_to_demo(words, port, substitutes):
    calls = substitutes()
    assert main(words) == 0
    ((_, given),) = calls
    assert given.values.get("port") == port


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rnu"], "unknown command 'rnu' (did you mean run?)"),
        (
            ["xyzzy"],
            f"unknown command 'xyzzy' (commands: {ALL})",
        ),
        (["help", "forwrad"], "unknown command 'forwrad' (did you mean forward?)"),
        (["--kubecofnig=x"], "unknown flag --kubecofnig (did you mean --kubeconfig?)"),
        (
            ["cleanup", "--xyzzy"],
            "unknown flag --xyzzy (userspace-proxy cleanup --help lists them)",
        ),
        (["--xyzzy"], "unknown flag --xyzzy (userspace-proxy run --help lists them)"),
        (["--v=2", "run"], "unexpected argument 'run' (write a value with its flag: --flag=value)"),
        (["--config=/nonexistent"], "cannot read --config=/nonexistent: No such file or directory"),
        (
            ["--write-config-to=/nonexistent/x"],
            "cannot write --write-config-to=/nonexistent/x: No such file or directory",
        ),
    ],
)
def test_a_usage_error_is_reported_in_one_line_with_status_2(words, message, capsys):
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"error: {message}\n")


@pytest.mark.parametrize(
    ("outcome", "status", "err"),
    [
        pytest.param(SteeringError("cannot steer", hint="why"), 1, "error: cannot steer (why)\n",
                     id="expected-error"),
        pytest.param(ConfigError("wrong"), 2, "error: wrong\n", id="late-config-error"),
        pytest.param(SteeringError("two\nlines"), 1, "error: two lines\n", id="two-lines"),
        pytest.param(SteeringError("\x1b[2J\udce9"), 1, "error: \\u001b[2J\\udce9\n", id="escapes"),
        pytest.param(KeyboardInterrupt(), 0, "", id="ctrl-c"),
    ],
)  # fmt: skip
def test_the_outcome_of_a_command_sets_its_exit_status_and_error_line(
    outcome, status, err, substitutes, clean_logging, capfd
):
    substitutes(outcome)
    assert main([]) == status
    # At exit, logging flushes its handlers.
    for handler in logging.getLogger().handlers:
        handler.flush()
    assert capfd.readouterr().err == err


def test_an_unexpected_exception_has_a_redacted_traceback(substitutes, clean_logging, capsys):
    substitutes(ZeroDivisionError("http://me:hunter2@proxy"))
    with pytest.raises(SystemExit, match="1"):
        main([])
    error = capsys.readouterr().err
    assert error.startswith("Traceback")
    assert error.endswith("ZeroDivisionError: http://[removed]@proxy\n")


@pytest.mark.parametrize(
    ("words", "beginning"),
    [
        (["--help"], "userspace-proxy: a Service proxy"),
        (["-h"], "userspace-proxy: a Service proxy"),
        (["help"], "userspace-proxy: a Service proxy"),
        (["run", "--help"], "userspace-proxy run: serve"),
        (["forward", "--help"], "userspace-proxy forward:"),
        (["help", "forward"], "userspace-proxy forward:"),
    ],
)
def test_help_is_printed(words, beginning, capsys):
    assert main(words) == 0
    assert capsys.readouterr().out.startswith(beginning)


def python(code, **streams):
    return subprocess.run([sys.executable, "-c", code], text=True, timeout=30, **streams)


def test_main_reads_the_command_line_by_default():
    done = subprocess.run(
        [sys.executable, "-m", "userspace_proxy.cli", "--version"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout) == (0, f"userspace-proxy {VERSION}\n")


def test_help_imports_no_slow_modules():
    code = (
        "import sys; from userspace_proxy.cli import main; main(['--help'])\n"
        "slow = {'aiohttp', 'asyncio', 'kubernetes_asyncio', 'msgspec', 'uvloop', 'yaml'}\n"
        "print('imported:', *slow & set(sys.modules))"
    )
    done = python(code, capture_output=True)
    assert done.stdout.splitlines()[-1] == "imported:"


def test_a_closed_pipe_is_not_an_error():
    read_end, write_end = os.pipe()
    os.close(read_end)
    code = "import sys; from userspace_proxy.cli import main; sys.exit(main(['--help']))"
    done = python(code, stdout=write_end, stderr=subprocess.PIPE)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("redirection", "error"),
    [
        pytest.param(">&-", "Bad file descriptor", id="closed"),
        pytest.param(">/dev/full", "No space left on device", id="full"),
    ],
)
@pytest.mark.parametrize("word", ["--version", "man"], ids=["short", "long"])
def test_a_failed_write_to_stdout_is_reported_in_one_line(redirection, error, word):
    command = [sys.executable, "-m", "userspace_proxy.cli", word]
    script = ["sh", "-c", f'exec "$@" {redirection}', "sh"]
    done = subprocess.run([*script, *command], stderr=subprocess.PIPE, text=True, timeout=60)
    line = f"error: cannot write the output: {error}\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_an_os_error_not_caused_by_output_has_a_traceback(substitutes, clean_logging, capsys):
    substitutes(OSError(9, "Bad file descriptor"))
    with pytest.raises(SystemExit, match="1"):
        main([])
    assert capsys.readouterr().err.startswith("Traceback")


def test_invalid_bytes_read_back_from_a_configured_stream_are_replaced(monkeypatch, capsys):
    """When pytest captures output, stdout is a stream that can be read back."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", stream)
    assert main(["--version"]) == 0
    stream.seek(0)
    stream.buffer.write(b"\xff\n")
    stream.seek(0)
    assert stream.readline() == "\ufffd\n"


def test_characters_that_stdout_cannot_encode_are_replaced_by_ascii():
    code = (
        "import sys; from userspace_proxy.cli import main; status = main(['--version']); "
        "print('✕ ✓ · … ☃'); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        timeout=30,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert done.stdout.splitlines()[1:] == [b"x + \xb7 ... ?"]
    assert done.returncode == 0


def test_closed_standard_streams_become_dev_null(tmp_path):
    """Otherwise the next socket would get descriptor 1 or 2 and receive all output."""
    script = (
        "import os, sys; from userspace_proxy.cli import main; status = main(['help']); "
        "streams = [os.readlink(f'/proc/self/fd/{n}') for n in range(3)]; "
        "open(sys.argv[1], 'w').write(f'{status} {streams}')"
    )
    result = tmp_path / "result"
    command = [sys.executable, "-c", script, str(result)]
    closed = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]
    subprocess.run([*closed, *command], check=True, timeout=20)
    assert result.read_text() == "1 ['/dev/null', '/dev/null', '/dev/null']"


IMPORTING = """
import os, signal, sys

class HangUp:
    def find_spec(self, name, *rest):
        if name == "userspace_proxy.config":
            os.kill(os.getpid(), signal.SIG%s)

signal.signal(signal.SIG%s, signal.SIG_DFL)
sys.meta_path.insert(0, HangUp())
from userspace_proxy.cli import main
from userspace_proxy.cli.command_table import COMMANDS
sys.exit(main(["run", "--version"]))
"""


@pytest.mark.parametrize("name", ["HUP", "USR1", "USR2"])
def test_a_signal_that_arrives_during_imports_is_ignored(name):
    program = IMPORTING % (name, name)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"userspace-proxy {VERSION}\n")
