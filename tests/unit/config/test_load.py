import pytest

from userspace_proxy.config.load import load_settings
from userspace_proxy.config.settings import Settings
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import SocketAddress

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a KubeProxyConfiguration and returns its flag."""

    def write(text):
        path = tmp_path / "config.conf"
        path.write_text(HEAD + text)
        return f"--config={path}"

    return write


def test_a_flag_that_overrides_kube_proxys_file_is_reported(config):
    flag = config("clusterCIDR: 10.0.0.0/8\n")
    same = ["--cluster-cidr=10.0.0.0/8", "--hostname-override=n", "--v=2", "--steering=none"]
    assert load_settings([flag, *same]).warnings == ()
    loaded = load_settings([flag, "--cluster-cidr=172.16.0.0/12"])
    assert loaded.settings.cluster_cidr == ("172.16.0.0/12",)
    assert loaded.warnings == (
        "--cluster-cidr=172.16.0.0/12 overrides clusterCIDR of the file; kube-proxy would ignore "
        "the flag, so remove it if it is an old one",
    )


@pytest.mark.parametrize(
    ("words", "addresses"),
    [
        pytest.param(["--proxy-mode=nftables"], ("primary",), id="nftables"),
        pytest.param(["--proxy-mode=nftables", "--nodeport-addresses="], ("primary",), id="empty"),
        pytest.param(["--proxy-mode=nftables", "--nodeport-addresses=all"], ("all",), id="given"),
        pytest.param(["--proxy-mode=nftables", "--manifests=a.yaml"], (), id="manifests"),
        pytest.param(["--proxy-mode=iptables"], (), id="iptables"),
        pytest.param(["--proxy-mode=ipvs"], (), id="ipvs"),
        pytest.param([], (), id="none"),
    ],
)
def test_node_port_addresses_have_the_default_of_kube_proxys_mode(words, addresses):
    assert load_settings(words).settings.nodeport_addresses == addresses


def test_mode_nftables_warns_about_its_node_port_default(config):
    flag = config("mode: nftables\n")
    place = flag.removeprefix("--config=")
    assert load_settings([flag]).warnings[0] == (
        f"{place}:3: mode: nftables: node ports are served at the node's primary addresses, as in "
        "that mode of kube-proxy; --nodeport-addresses=all serves them at all"
    )


def test_a_sync_period_of_another_mode_in_a_file_has_no_effect(config):
    flag = config("mode: nftables\niptables: {minSyncPeriod: 10s}\n")
    place = flag.removeprefix("--config=")
    loaded = load_settings([flag])
    assert loaded.settings.iptables_min_sync_period_s == Settings().iptables_min_sync_period_s
    assert loaded.warnings[0] == (
        f"{place}:4: iptables.minSyncPeriod: 10s has no effect: kube-proxy doesn't obey it in mode "
        "nftables"
    )
    by_flags = load_settings(["--proxy-mode=nftables", "--iptables-min-sync-period=10s"]).settings
    assert by_flags.iptables_min_sync_period_s == 10


@pytest.mark.parametrize(
    ("words", "healthz", "metrics"),
    [
        pytest.param([], "0.0.0.0:10256", "127.0.0.1:10249", id="ipv4"),
        pytest.param(["--bind-address=::"], "[::]:10256", "[::1]:10249", id="ipv6"),
        pytest.param(
            ["--bind-address=fd00::1", "--healthz-bind-address=10.0.0.1"],
            "10.0.0.1:10256",
            "[::1]:10249",
            id="ipv6-with-one-given-address",
        ),
    ],
)
def test_status_servers_listen_on_the_family_of_the_bind_address(words, healthz, metrics):
    settings = load_settings(words).settings
    assert str(settings.healthz_bind_address) == healthz
    assert str(settings.metrics_bind_address) == metrics


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        (
            ["--proxy-mode=ipvs"],
            ("--proxy-mode=ipvs has no effect: this proxy runs in userspace mode",),
        ),
        (["--proxy-mode=userspace"], ()),
        (["--detect-local-mode=NodeCIDR"], ()),
        (
            ["--detect-local-mode=BridgeInterface"],
            (
                (
                    "--detect-local-mode=BridgeInterface has no effect: BridgeInterface and "
                    "InterfaceNamePrefix are treated as ClusterCIDR"
                ),
            ),
        ),
        (
            ["--manifests=m.yaml", "--kubeconfig=k"],
            ("--kubeconfig isn't used: Services come from --manifests=m.yaml",),
        ),
        (
            ["--manifests=m.yaml", "--endpoints-from-pods"],
            ("--endpoints-from-pods isn't used: manifests contain EndpointSlices, not Pods",),
        ),
        (
            ["--manifests=m.yaml", "--allow-node-endpoints"],
            ("--allow-node-endpoints isn't needed: manifests may name this node's addresses",),
        ),
        (
            ["--dns-upstream=192.0.2.53"],
            ("--dns-upstream isn't used: without --dns-bind-address no names are answered",),
        ),
        (["--dns-upstream=192.0.2.53", "--dns-bind-address=127.0.0.1"], ()),
        (
            ["--service-cluster-ip-range=10.0.0.0/16"],
            ("--service-cluster-ip-range isn't used: the API server allocates ClusterIPs",),
        ),
        (
            ["--proxy-ports=29000-31000"],
            (
                (
                    "--proxy-ports=29000-31000 overlaps node ports (from 30000) or "
                    "ephemeral ports (from 32768): a proxy port may be in use when it is needed"
                ),
            ),
        ),
    ],
)
def test_a_setting_without_effect_or_with_a_conflict_is_a_warning(words, warnings):
    assert load_settings(words).warnings == warnings


def test_a_proxy_mode_without_effect_is_reported_with_its_line(config):
    flag = config("mode: iptables\n")
    place = flag.removeprefix("--config=")
    assert load_settings([flag]).warnings == (
        f"{place}:3: mode: iptables has no effect: this proxy runs in userspace mode",
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--iptables-sync-period=1s", "--iptables-min-sync-period=2s"],
            "--iptables-min-sync-period is longer than --iptables-sync-period "
            "(kube-proxy refuses that too)",
        ),
        (
            ["--healthz-bind-address=127.0.0.1:10249"],
            "--healthz-bind-address and --metrics-bind-address are both 127.0.0.1:10249 "
            "(one is for load balancers, the other for this node's operator)",
        ),
        (
            ["--config=/nonexistent/config.conf"],
            "cannot read --config=/nonexistent/config.conf: No such file or directory",
        ),
    ],
)
def test_conflicting_settings_and_an_unreadable_file_are_errors(words, message):
    with pytest.raises(ConfigError) as caught:
        load_settings(words)
    assert str(caught.value) == message


def test_two_servers_can_both_use_port_zero():
    words = ["--healthz-bind-address=127.0.0.1:0", "--metrics-bind-address=127.0.0.1:0"]
    assert load_settings(words).settings.metrics_bind_address == SocketAddress("127.0.0.1", 0)
