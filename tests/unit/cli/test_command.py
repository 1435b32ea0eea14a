from dataclasses import replace

import pytest

from userspace_proxy.cli.command import Command, CommandFlag, Given
from userspace_proxy.errors import ConfigError

SHOW = Command(
    "show",
    "show it",
    lambda given: 0,
    arguments="[THING]",
    flags=(
        CommandFlag("output", "format", "text|json", short="o"),
        CommandFlag("watch", "again", short="w"),
    ),
)
RUN = Command("run", "run it", lambda given: 0, takes_settings=True)
PICK = Command("pick", "pick one", lambda given: 0, arguments="bash|zsh", choices=("bash", "zsh"))


@pytest.mark.parametrize(
    ("words", "values", "arguments"),
    [
        pytest.param([], {}, (), id="nothing"),
        pytest.param(["-o", "json", "web"], {"output": "json"}, ("web",), id="short"),
        pytest.param(["web", "-ojson"], {"output": "json"}, ("web",), id="joined"),
        pytest.param(["--output=json"], {"output": "json"}, (), id="long"),
        pytest.param(["-w"], {"watch": "true"}, (), id="switch"),
        pytest.param(["a", "b", "-h"], {"help": "true"}, ("a", "b"), id="help-wins"),
    ],
)
def test_a_commands_flags_and_arguments_are_parsed(words, values, arguments):
    given = SHOW.read_words(words)
    assert (given.values, given.arguments, given.command) == (values, arguments, "show")


def test_arguments_after_two_dashes_are_passed_to_another_program():
    show = replace(SHOW, takes_program=True)
    given = show.read_words(["-w", "web", "--", "ls", "--", "-o"])
    assert (given.values, given.arguments) == ({"watch": "true"}, ("web",))
    assert given.rest == ("ls", "--", "-o")
    assert show.read_words(["web"]).rest == ()
    assert show.usage == "show [THING] [flags] -- COMMAND [ARGS]"


def test_flags_of_run_are_normalized_and_keep_their_order():
    words = ["--v", "2", "--cluster_cidr=a", "--cleanup", "--cluster-cidr", "b"]
    given = RUN.read_words(words, called="")
    assert given.settings == ("-v=2", "--cluster-cidr=a", "--cleanup=true", "--cluster-cidr=b")
    assert given.command == ""


def test_an_argument_with_an_ellipsis_can_be_repeated():
    several = replace(SHOW, arguments="[THING...]")
    assert several.read_words([]).arguments == ()
    assert several.read_words(["a", "b", "c"]).arguments == ("a", "b", "c")


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (SHOW, ["-o", "yaml"], "-o: 'yaml' is not one of text, json"),
        (SHOW, ["--output="], "--output: '' is not one of text, json"),
        (SHOW, ["-o"], "-o needs a value"),
        (SHOW, ["--otput=json"], "unknown flag --otput (did you mean --output?)"),
        (SHOW, ["--v=2"], "unknown flag --v (userspace-proxy show --help lists them)"),
        (
            SHOW,
            ["a", "b"],
            "unexpected argument 'b' (usage: userspace-proxy show [THING] [flags])",
        ),
        (RUN, ["a"], "unexpected argument 'a' (write a value with its flag: --flag=value)"),
        (PICK, [], "pick needs bash|zsh (usage: userspace-proxy pick bash|zsh)"),
        (PICK, ["bsh"], "pick: unknown 'bsh' (did you mean bash?)"),
        (PICK, ["x"], "pick: unknown 'x' (one of bash, zsh)"),
    ],
)
def test_invalid_flags_and_arguments_are_rejected_with_a_remedy(command, words, message):
    with pytest.raises(ConfigError) as caught:
        command.read_words(words)
    assert str(caught.value) == message


@pytest.mark.parametrize(("text", "expected"), [("true", True), ("false", False), ("1", True)])
def test_a_switch_can_be_set_to_a_boolean(text, expected):
    assert Given({"watch": text}).is_on("watch") is expected


def test_a_switch_that_is_not_given_is_off():
    assert Given({}).is_on("watch") is False


def test_an_invalid_switch_value_is_rejected():
    with pytest.raises(ConfigError, match="--watch: 'often' is not true or false"):
        Given({"watch": "often"}).is_on("watch")
