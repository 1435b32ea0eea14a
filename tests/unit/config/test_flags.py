import pytest

from userspace_proxy.config.flags import read_flags, split_words
from userspace_proxy.config.values import PortRange
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import SocketAddress


def test_kube_proxys_command_line_is_read():
    flags = read_flags(
        [
            "--kubeconfig=/etc/kube.conf",
            "--cluster_cidr",
            "10.244.0.0/16,fd00:10:244::/56",
            "--proxy-ports=20000-20100",
            "--udp-idle-timeout=250ms",
            "-v2",
        ]
    )
    assert flags.values == {
        "kubeconfig": "/etc/kube.conf",
        "cluster_cidr": ("10.244.0.0/16", "fd00:10:244::/56"),
        "proxy_port_range": PortRange(20000, 20100),
        "udp_idle_s": 0.25,
        "verbosity": 2,
    }
    assert flags.warnings == ()


def test_the_text_of_a_flag_is_stored_in_canonical_form():
    assert read_flags(["--proxy_mode", "ipvs"]).texts == {"proxy_mode": "--proxy-mode=ipvs"}


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--v=1", "--v=3"], "verbosity", 3),
        (
            ["--nodeport-addresses=10.0.0.0/8", "--nodeport-addresses=192.168.0.0/16"],
            "nodeport_addresses",
            ("10.0.0.0/8", "192.168.0.0/16"),
        ),
        (
            ["--feature-gates=A=true", "--feature-gates=B=false,A=false"],
            "feature_gates",
            (("A", False), ("B", False)),
        ),
        (["--cleanup=f"], "cleanup", False),
        (["--logging-format=json"], "log_format", "json"),
        (["--healthz-bind-address="], "healthz_bind_address", None),
        (["--healthz-port=0"], "healthz_bind_address", None),
        (["--metrics-port=80"], "metrics_bind_address", SocketAddress("127.0.0.1", 80)),
        (
            ["--metrics-port=80", "--metrics-bind-address=10.0.0.1:81"],
            "metrics_bind_address",
            SocketAddress("10.0.0.1", 81),
        ),
    ],
)
def test_each_flag_sets_its_setting(words, name, value):
    assert read_flags(words).values[name] == value


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--udp-idle-timeout=5"], "--udp-idle-timeout: '5' has no unit (write 5s)"),
        (["--v=x"], "-v: 'x' is not a whole number"),
        (
            ["--steering=magic"],
            ("--steering: 'magic' is not one of auto, iptables, nftables, local, none"),
        ),
        (["--connect-timeout=0"], "--connect-timeout: 0 is too short (at least 1ms)"),
        (["--conntrack-min=many"], "--conntrack-min: 'many' is not a whole number"),
        (["--kube-api-qps=fast"], "--kube-api-qps: 'fast' is not a number"),
        (["--metrics-port=99999"], "--metrics-port: 99999 is not in 0–65535"),
        (
            ["--service-proxy-name=a/b"],
            "--service-proxy-name: 'a/b' is not a label's value, so no Service can have it (at "
            "most 63 letters, digits, '-', '_' and '.'; the first and the last one is a letter or "
            "a digit)",
        ),
        (
            ["--cleanup", "false"],
            ("unexpected argument 'false' (write a value with its flag: --flag=value)"),
        ),
        (["--kubecofnig=x"], "unknown flag --kubecofnig (did you mean --kubeconfig?)"),
    ],
)
def test_an_invalid_flag_is_reported_in_one_sentence(words, message):
    with pytest.raises(ConfigError) as caught:
        read_flags(words)
    assert str(caught.value) == message


def test_an_empty_value_of_a_kube_proxy_flag_means_the_default():
    flags = read_flags(["--bind-address=", "--detect-local-mode=", "--hostname-override="])
    assert flags.values == {"hostname_override": ""}
    for flag in ("--steering=", "--v="):
        with pytest.raises(ConfigError):
            read_flags([flag])


def test_ignored_flags_are_reported_once_per_reason():
    words = [
        "--ipvs-scheduler=rr",
        "--ipvs_strict_arp",
        "--oom-score-adj=-999",
        "--ipvs-scheduler=sh",
    ]
    assert read_flags(words).warnings == (
        "ignored --ipvs-scheduler, --ipvs-strict-arp: there are no IPVS rules (docs/paths.md)",
        "ignored --oom-score-adj: it is set in the pod or the systemd unit",
    )


FLAGS = {
    "kubeconfig": True,
    "proxy-mode": True,
    "cleanup": False,
    "v": True,
    "vmodule": True,
    "h": False,
}


@pytest.mark.parametrize(
    ("words", "given", "others"),
    [
        pytest.param(["--kubeconfig=k"], [("kubeconfig", "k")], [], id="equals"),
        pytest.param(["--kubeconfig", "k"], [("kubeconfig", "k")], [], id="next-word"),
        pytest.param(["--kubeconfig="], [("kubeconfig", "")], [], id="empty-value"),
        pytest.param(["--kubeconfig", ""], [("kubeconfig", "")], [], id="empty-word"),
        pytest.param(["--kubeconfig=a=b"], [("kubeconfig", "a=b")], [], id="equals-in-value"),
        pytest.param(["--kubeconfig", "--v"], [("kubeconfig", "--v")], [], id="takes-any-word"),
        pytest.param(["--proxy_mode=x"], [("proxy-mode", "x")], [], id="underscores"),
        pytest.param(["--cleanup"], [("cleanup", "true")], [], id="switch"),
        pytest.param(["--cleanup=false"], [("cleanup", "false")], [], id="switch-off"),
        pytest.param(["--cleanup", "false"], [("cleanup", "true")], ["false"], id="switch-alone"),
        pytest.param(["-v4"], [("v", "4")], [], id="short-joined"),
        pytest.param(["-vfour"], [("v", "four")], [], id="short-joined-text"),
        pytest.param(["-v=4"], [("v", "4")], [], id="short-equals"),
        pytest.param(["-v", "4"], [("v", "4")], [], id="short-next-word"),
        pytest.param(["--v=4"], [("v", "4")], [], id="short-name-long-form"),
        pytest.param(["-h"], [("h", "true")], [], id="short-switch"),
        pytest.param(["--", "--v=4"], [], ["--v=4"], id="end-of-flags"),
        pytest.param(["a", "-", "--v=1", "b"], [("v", "1")], ["a", "-", "b"], id="other-words"),
        pytest.param(["--v=1", "--v=2"], [("v", "1"), ("v", "2")], [], id="repeated"),
    ],
)
def test_arguments_are_split_as_pflag_splits_them(words, given, others):
    assert split_words(words, FLAGS) == (given, others)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--kubecofnig=k"], "unknown flag --kubecofnig (did you mean --kubeconfig?)"),
        (["--proxy_mod"], "unknown flag --proxy_mod (did you mean --proxy-mode?)"),
        (["-vmodule=k"], "unknown flag -vmodule (did you mean --vmodule?)"),
        (["-kubeconfig=k"], "unknown flag -kubeconfig (did you mean --kubeconfig?)"),
        (["--kube"], "unknown flag --kube (userspace-proxy run --help lists them)"),
        (["-x"], "unknown flag -x (userspace-proxy run --help lists them)"),
        (["-hx"], "unknown flag -hx (userspace-proxy run --help lists them)"),
        (["--=5"], "unknown flag -- (userspace-proxy run --help lists them)"),
        (["--kubeconfig"], "--kubeconfig needs a value"),
        (["-v"], "-v needs a value"),
    ],
)
def test_an_invalid_argument_is_rejected_with_a_remedy(words, message):
    with pytest.raises(ConfigError) as caught:
        split_words(words, FLAGS, command="run")
    assert str(caught.value) == message


def test_the_deprecated_flag_cleanup_iptables_means_cleanup():
    assert read_flags(["--cleanup-iptables"]).values == {"cleanup": True}
