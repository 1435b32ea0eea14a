from pathlib import Path
from textwrap import dedent

import pytest

from userspace_proxy.config.kubeproxy import read_config, read_config_file
from userspace_proxy.errors import ConfigError
from userspace_proxy.model import SocketAddress
from userspace_proxy.model.document import parse_documents

HERE = Path(__file__).parent
KUBE = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
OURS = "apiVersion: userspace-proxy.io/v1alpha1\nkind: UserspaceProxyConfiguration\n"


def kubeadms(version):
    """Return the kube-proxy configuration in kubeadm's ConfigMap."""
    path = HERE / f"kubeadm-{version}.yaml"
    (config_map,) = parse_documents(path.read_text(encoding="utf-8"), place=path.name)
    return config_map.value["data"]["config.conf"]


def read(head, text):
    return read_config(head + dedent(text), place="c.yaml")


def error_of(text):
    with pytest.raises(ConfigError) as caught:
        read_config(dedent(text), place="c.yaml")
    return str(caught.value)


@pytest.mark.parametrize("version", ["1.25", "1.36"])
def test_kubeadms_configuration_is_accepted_without_a_warning(version):
    config = read_config(kubeadms(version), place="config.conf")
    assert config.values == {
        "bind_address": "0.0.0.0",
        "kubeconfig": "/var/lib/kube-proxy/kubeconfig.conf",
        "cluster_cidr": ("10.244.0.0/16",),
    }
    assert config.warnings == []


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("bindAddress: '::'", "bind_address", "::"),
        ("healthzBindAddress: 127.0.0.1", "healthz_bind_address", ("127.0.0.1", 10256)),
        ("metricsBindAddress: '[::]:10249'", "metrics_bind_address", SocketAddress("::", 10249)),
        ("hostnameOverride: Node-1", "hostname_override", "node-1"),
        ("clusterCIDR: 10.0.0.0/8,fd00::/8", "cluster_cidr", ("10.0.0.0/8", "fd00::/8")),
        ("nodePortAddresses: [10.0.0.0/8]", "nodeport_addresses", ("10.0.0.0/8",)),
        ("iptables: {syncPeriod: 1m0s}", "iptables_sync_period_s", 60.0),
        ("iptables: {minSyncPeriod: 1s}", "iptables_min_sync_period_s", 1.0),
        ("configSyncPeriod: 5m", "config_sync_period_s", 300.0),
        ("mode: userspace", "proxy_mode", "userspace"),
        ("featureGates: {A: true}", "feature_gates", (("A", True),)),
        ("logging: {verbosity: 4}", "verbosity", 4),
        ("logging: {format: json}", "log_format", "json"),
        ("clientConnection: {kubeconfig: /k}", "kubeconfig", "/k"),
    ],
)
def test_a_kube_proxy_field_becomes_a_setting(text, name, value):
    assert read(KUBE, text).values == {name: value}


@pytest.mark.parametrize(
    "text",
    [
        'udpIdleTimeout: 0s\nhealthzBindAddress: ""\nmode: ""',
        "udpIdleTimeout: 0\nportRange: null\nfeatureGates: {}",
        "nodePortAddresses: []\nlogging: null\niptables: {}",
        "iptables:\n  syncPeriod: 0s\n  minSyncPeriod: 0m",
        "udpIdleTimeout:\nclientConnection:\n  kubeconfig:",
    ],
)
def test_zero_values_in_kube_proxys_configuration_mean_the_default(text):
    config = read(KUBE, text)
    assert config.values == {}
    assert config.warnings == []


def test_the_value_disabled_of_an_address_is_not_treated_as_a_zero_value():
    assert read(KUBE, "healthzBindAddress: disabled").values == {"healthz_bind_address": None}


def test_fields_without_effect_are_reported_once_per_reason():
    config = read(KUBE, "ipvs: {scheduler: rr, strictARP: true}\noomScoreAdj: -999\n")
    assert config.warnings == [
        "c.yaml: ignored ipvs.scheduler, ipvs.strictARP: there are no IPVS rules (docs/paths.md)",
        "c.yaml: ignored oomScoreAdj: it is set in the pod or the systemd unit",
    ]


def test_unknown_fields_are_reported_with_a_suggestion_if_a_field_is_similar():
    config = read(KUBE, "clusterCidr: 10.0.0.0/8\niptables:\n  xyzzy: 1\n")
    assert config.warnings == [
        (
            "c.yaml:3: ignored clusterCidr: KubeProxyConfiguration has no such field "
            "(did you mean clusterCIDR?)"
        ),
        "c.yaml:5: ignored iptables.xyzzy: KubeProxyConfiguration has no such field",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bindAddress: 5", "c.yaml:3: bindAddress: 5 (a number) is not text (quote it)"),
        ("configSyncPeriod: 30", "c.yaml:3: configSyncPeriod: 30 has no unit (write 30s)"),
        ("clusterCIDR: [10.0.0.0/8]", "c.yaml:3: clusterCIDR: a list is not text"),
        ("mode: [ipvs]", "c.yaml:3: mode: a list is not text"),
        ("iptables: fast", "c.yaml:3: iptables: 'fast' (text) is not a mapping"),
        (
            "iptables:\n  syncPeriod: soon",
            "c.yaml:4: iptables.syncPeriod: 'soon' is not a duration (write 30s, 250ms or 1m30s)",
        ),
        ("conntrack:\n  min: many", "c.yaml:4: conntrack.min: 'many' (text) is not a whole number"),
        (
            "nodePortAddresses:\n- 10.0.0.0/8\n- 10.0.0.1",
            (
                "c.yaml:3: nodePortAddresses: '10.0.0.1' has no prefix length "
                "(write 10.0.0.1/32 for a single address)"
            ),
        ),
        (
            "healthzBindAddress: localhost",
            ("c.yaml:3: healthzBindAddress: 'localhost' is not an IP address"),
        ),
    ],
)
def test_a_wrong_type_or_value_is_an_error_with_file_and_line(text, message):
    assert error_of(KUBE + text) == message


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("manifests: services.yaml", "manifests", "services.yaml"),
        ("steering: local", "steering", "local"),
        ("workers: auto", "workers", None),
        ("workers: 2", "workers", 2),
        ("serviceClusterIPRange: [10.0.0.0/16]", "service_cluster_ip_range", ("10.0.0.0/16",)),
        ("serviceClusterIPRange: 10.0.0.0/16", "service_cluster_ip_range", ("10.0.0.0/16",)),
        ("serviceProxyName: canary", "service_proxy_name", "canary"),
        ("preserveClientAddress: never", "preserve_client_address", "never"),
        ("drainTimeout: 0s", "drain_s", 0.0),
        ('stateDir: ""', "state_dir", ""),
        ("connectTimeout: 500ms", "connect_timeout_s", 0.5),
        ("udpIdleTimeout: 250ms", "udp_idle_s", 0.25),
        ("proxyPorts: 20000-20100", "proxy_port_range", (20000, 20100)),
        ("logFormat: json", "log_format", "json"),
        ("master: https://10.0.0.1", "master", "https://10.0.0.1"),
    ],
)
def test_a_field_of_the_proxys_own_configuration_becomes_a_setting_even_if_zero(text, name, value):
    assert read(OURS, text).values == {name: value}


def test_null_in_the_proxys_own_configuration_means_the_default():
    assert read(OURS, "steering: null").values == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stearing: local",
            "c.yaml:3: stearing: is not a field of UserspaceProxyConfiguration "
            "(did you mean steering?)",
        ),
        (
            "clusterCIDR: 10.0.0.0/8",
            "c.yaml:3: clusterCIDR: is not a field of UserspaceProxyConfiguration "
            "(it belongs in the KubeProxyConfiguration document)",
        ),
        (
            "conntrack: {}",
            "c.yaml:3: conntrack: is not a field of UserspaceProxyConfiguration "
            "(it belongs in the KubeProxyConfiguration document)",
        ),
        ("workers: 0", "c.yaml:3: workers: 0 is not in 1–64"),
        ("connectTimeout: 0s", "c.yaml:3: connectTimeout: 0s is too short (at least 1ms)"),
    ],
)
def test_a_mistake_in_the_proxys_own_configuration_is_an_error(text, message):
    assert error_of(OURS + text) == message


@pytest.mark.parametrize("first", [KUBE, OURS])
def test_the_proxys_own_configuration_takes_precedence_in_either_order(first):
    second = OURS if first is KUBE else KUBE
    texts = {KUBE: KUBE + "logging: {format: json}\n", OURS: OURS + "logFormat: text\n"}
    config = read_config(f"{texts[first]}---\n{texts[second]}", place="c.yaml")
    assert config.values == {"log_format": "text"}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        pytest.param("", "c.yaml: is empty", id="empty"),
        pytest.param("- a", "c.yaml:1: a list is not a configuration", id="list"),
        pytest.param("kind: X", "c.yaml:1: apiVersion: is missing", id="no-version"),
        pytest.param("apiVersion: 1\nkind: X", "c.yaml:1: apiVersion: is not text", id="number"),
        pytest.param(
            "apiVersion: v1\nkind: ConfigMap",
            "c.yaml:2: kind: v1 ConfigMap is not a known configuration kind",
            id="another-kind",
        ),
    ],
)
def test_an_unknown_configuration_kind_is_rejected_with_a_remedy(text, problem):
    assert error_of(text) == (
        f"{problem} (write kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration or "
        "userspace-proxy.io/v1alpha1 UserspaceProxyConfiguration)"
    )


def test_a_duplicate_configuration_document_is_rejected():
    assert error_of(f"{OURS}---\n{OURS}") == (
        "c.yaml:4: a second UserspaceProxyConfiguration (join them)"
    )


def test_a_binary_file_is_rejected(tmp_path):
    path = tmp_path / "config.conf"
    path.write_bytes(b"\xff\x00\xfe")
    with pytest.raises(ConfigError, match=r"config.conf:1: not YAML"):
        read_config_file(str(path))


def test_an_oversized_file_is_not_parsed(tmp_path):
    path = tmp_path / "config.conf"
    with path.open("wb") as stream:
        stream.truncate((16 << 20) + 1)
    with pytest.raises(ConfigError, match=r"config\.conf: it is larger than 16 MiB"):
        read_config_file(str(path))


def test_null_in_kube_proxys_configuration_is_the_zero_value_of_its_type():
    assert read(KUBE, "featureGates: {A: null}").values == {"feature_gates": (("A", False),)}


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_a_file_with_a_byte_order_mark_is_read(tmp_path, encoding):
    path = tmp_path / "config.conf"
    path.write_text(f"{KUBE}hostnameOverride: a\n", encoding=encoding)
    assert read_config_file(str(path)).values == {"hostname_override": "a"}


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            "udpIdleTimeout: 250ms",
            "c.yaml: ignored udpIdleTimeout: only kube-proxy's removed userspace mode obeyed it, "
            "by default with 250ms, which splits flows; UDP flows live as conntrack's do, or as "
            "long as --udp-idle-timeout says",
        ),
        (
            "udpIdleTimeout: soon",
            "c.yaml: ignored udpIdleTimeout: only kube-proxy's removed userspace mode obeyed it, "
            "by default with 250ms, which splits flows; UDP flows live as conntrack's do, or as "
            "long as --udp-idle-timeout says",
        ),
        (
            "portRange: 36000-36999",
            "c.yaml: ignored portRange: only kube-proxy's removed userspace mode obeyed it; see "
            "--proxy-ports",
        ),
    ],
)
def test_fields_ignored_by_kube_proxy_are_ignored_with_a_warning(text, warning):
    config = read(KUBE, text)
    assert config.values == {}
    assert config.warnings == [warning]


@pytest.mark.parametrize(
    ("text", "values", "warning"),
    [
        (
            "hostnameOverride: a\nhostnameOverride: b",
            {"hostname_override": "b"},
            "c.yaml:4: key 'hostnameOverride' is given twice, first in line 3; as in kube-proxy, "
            "the last value counts, and numbers are YAML 1.1's",
        ),
        (
            "logging: {verbosity: 010}",
            {"verbosity": 8},
            "c.yaml:3: logging.verbosity: 010 is 8 in YAML 1.1 and 10 in YAML 1.2; as in "
            "kube-proxy, the last value counts, and numbers are YAML 1.1's",
        ),
        (
            f"hostnameOverride: a\n---\n{KUBE}hostnameOverride: b",
            {"hostname_override": "a"},
            "c.yaml:5: ignored a second KubeProxyConfiguration, as kube-proxy does",
        ),
        (
            "hostnameOverride: a\n---\napiVersion: v1\nkind: ConfigMap",
            {"hostname_override": "a"},
            "c.yaml:6: kind: v1 ConfigMap is not a known configuration kind; it is ignored, as by "
            "kube-proxy",
        ),
    ],
)
def test_input_accepted_only_by_kube_proxys_lenient_parser_is_a_warning(text, values, warning):
    config = read(KUBE, text)
    assert config.values == values
    assert config.warnings == [warning]


def test_booleans_are_parsed_as_kube_proxy_parses_them():
    config = read(KUBE, "enableProfiling: on\niptables: {masqueradeAll: No}")
    assert config.warnings == ["c.yaml: ignored enableProfiling: there is no profiling server"]


def test_a_duplicate_key_in_the_proxys_own_configuration_is_an_error():
    assert error_of(f"{OURS}steering: local\nsteering: none\n") == (
        "c.yaml:4: key 'steering' is given twice, first in line 3"
    )
