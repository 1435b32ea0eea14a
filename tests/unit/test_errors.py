"""Tests of errors, each of which is one line with its remedy."""

import ast
import builtins
import errno
import pickle
from pathlib import Path

import pytest

import userspace_proxy
from userspace_proxy.errors import ListenError, SteeringError, shortage_hint
from userspace_proxy.kernel.nf_tables import NftablesError
from userspace_proxy.kernel.nf_tables.writer import NEW_TABLE

BUILT_IN = {
    name
    for name, value in vars(builtins).items()
    if isinstance(value, type) and issubclass(value, BaseException)
}


def test_the_hint_of_an_error_follows_its_message():
    error = ListenError("cannot listen on 192.0.2.1:80/TCP", hint="see ss -lntup")
    assert str(error) == "cannot listen on 192.0.2.1:80/TCP (see ss -lntup)"
    assert (error.message, error.hint) == ("cannot listen on 192.0.2.1:80/TCP", "see ss -lntup")


def test_the_cause_ends_an_errors_message_and_is_available_separately():
    error = ListenError("cannot listen on 192.0.2.1:80/TCP", cause="in use", hint="see ss -lntup")
    assert error.message == "cannot listen on 192.0.2.1:80/TCP: in use"
    assert (error.cause, error.hint) == ("in use", "see ss -lntup")


def test_the_text_of_an_error_without_a_hint_is_its_message():
    assert str(ListenError("cannot listen")) == "cannot listen"


def test_an_errors_text_contains_no_secrets_of_its_cause():
    error = ListenError("cannot ask: http://me:hunter@proxy", hint="not token=hunter")
    assert "hunter" not in f"{error} {error.message} {error.hint}"


def test_every_exception_of_the_package_has_the_same_base_class():
    outside = [
        f"{path.name}: {node.name}"
        for path in Path(userspace_proxy.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and node.name != "UserspaceProxyError"
        if any(isinstance(base, ast.Name) and base.id in BUILT_IN for base in node.bases)
    ]
    assert outside == []


@pytest.mark.parametrize(
    ("number", "words"),
    [
        pytest.param(errno.EMFILE, "RLIMIT_NOFILE", id="process"),
        pytest.param(errno.ENFILE, "fs.file-max", id="node"),
        pytest.param(errno.ENOBUFS, "memory", id="buffers"),
        pytest.param(errno.ENOMEM, "memory", id="memory"),
    ],
)
def test_the_hint_of_a_shortage_matches_its_cause(number, words):
    assert words in shortage_hint(number)
    assert ("RLIMIT_NOFILE" in shortage_hint(number)) == (number == errno.EMFILE)


def test_an_errno_that_is_no_shortage_has_no_hint():
    assert shortage_hint(errno.EADDRINUSE) == shortage_hint(None) == ""


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(SteeringError("cannot steer", hint="do this"), id="hint"),
        pytest.param(NftablesError(errno.EOPNOTSUPP, NEW_TABLE), id="other-arguments"),
        pytest.param(ListenError("cannot listen", cause="in use"), id="more-fields"),
    ],
)
def test_an_error_survives_pickling(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
