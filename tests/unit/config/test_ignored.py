import pytest

from userspace_proxy.config.flags import read_flags
from userspace_proxy.config.ignored import FIELDS, FLAGS
from userspace_proxy.config.kinds import BOOL
from userspace_proxy.config.settings import TABLE


def _words(text):
    return text.split()


# The flags of ``kube-proxy --help`` on Linux.
OF_1_25 = _words("""
    add-dir-header alsologtostderr bind-address bind-address-hard-fail boot-id-file cleanup
    cluster-cidr config config-sync-period conntrack-max-per-core conntrack-min
    conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established detect-local-mode
    feature-gates healthz-bind-address healthz-port help hostname-override
    iptables-masquerade-bit iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs
    ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout
    ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst kube-api-content-type kube-api-qps
    kubeconfig log-backtrace-at log-dir log-file log-file-max-size log-flush-frequency
    logtostderr machine-id-file masquerade-all master metrics-bind-address metrics-port
    nodeport-addresses one-output oom-score-adj pod-bridge-interface pod-interface-name-prefix
    profiling proxy-mode proxy-port-range show-hidden-metrics-for-version skip-headers
    skip-log-headers stderrthreshold udp-timeout v version vmodule write-config-to
""")
OF_1_36 = _words("""
    bind-address bind-address-hard-fail cleanup cluster-cidr config config-sync-period
    conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal
    conntrack-tcp-timeout-close-wait conntrack-tcp-timeout-established conntrack-udp-timeout
    conntrack-udp-timeout-stream detect-local-mode feature-gates healthz-bind-address
    healthz-port help hostname-override init-only iptables-localhost-nodeports
    iptables-masquerade-bit iptables-min-sync-period iptables-sync-period ipvs-exclude-cidrs
    ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp ipvs-sync-period ipvs-tcp-timeout
    ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst kube-api-content-type kube-api-qps
    kubeconfig log-flush-frequency log-json-info-buffer-size log-json-split-stream
    log-text-info-buffer-size log-text-split-stream logging-format masquerade-all master
    metrics-bind-address metrics-port nodeport-addresses oom-score-adj pod-bridge-interface
    pod-interface-name-prefix profiling proxy-mode show-hidden-metrics-for-version v version
    vmodule write-config-to
""")
ALL = sorted({*OF_1_25, *OF_1_36})

# The fields of KubeProxyConfiguration v1alpha1, taken from its Go types.
FIELDS_OF_1_25 = _words("""
    bindAddress bindAddressHardFail clientConnection.acceptContentTypes clientConnection.burst
    clientConnection.contentType clientConnection.kubeconfig clientConnection.qps clusterCIDR
    configSyncPeriod conntrack.maxPerCore conntrack.min conntrack.tcpCloseWaitTimeout
    conntrack.tcpEstablishedTimeout detectLocal.bridgeInterface
    detectLocal.interfaceNamePrefix detectLocalMode enableProfiling featureGates
    healthzBindAddress hostnameOverride iptables.masqueradeAll iptables.masqueradeBit
    iptables.minSyncPeriod iptables.syncPeriod ipvs.excludeCIDRs ipvs.minSyncPeriod
    ipvs.scheduler ipvs.strictARP ipvs.syncPeriod ipvs.tcpFinTimeout ipvs.tcpTimeout
    ipvs.udpTimeout metricsBindAddress mode nodePortAddresses oomScoreAdj portRange
    showHiddenMetricsForVersion udpIdleTimeout winkernel.enableDSR
    winkernel.forwardHealthCheckVip winkernel.networkName winkernel.rootHnsEndpointName
    winkernel.sourceVip
""")
FIELDS_OF_1_36 = _words("""
    bindAddress bindAddressHardFail clientConnection.acceptContentTypes clientConnection.burst
    clientConnection.contentType clientConnection.kubeconfig clientConnection.qps clusterCIDR
    configSyncPeriod conntrack.maxPerCore conntrack.min conntrack.tcpBeLiberal
    conntrack.tcpCloseWaitTimeout conntrack.tcpEstablishedTimeout conntrack.udpStreamTimeout
    conntrack.udpTimeout detectLocal.bridgeInterface detectLocal.interfaceNamePrefix
    detectLocalMode enableProfiling featureGates healthzBindAddress hostnameOverride
    iptables.localhostNodePorts iptables.masqueradeAll iptables.masqueradeBit
    iptables.minSyncPeriod iptables.syncPeriod ipvs.excludeCIDRs ipvs.minSyncPeriod
    ipvs.scheduler ipvs.strictARP ipvs.syncPeriod ipvs.tcpFinTimeout ipvs.tcpTimeout
    ipvs.udpTimeout logging.flushFrequency logging.format logging.options.json.infoBufferSize
    logging.options.json.splitStream logging.options.text.infoBufferSize
    logging.options.text.splitStream logging.verbosity logging.vmodule metricsBindAddress mode
    nftables.masqueradeAll nftables.masqueradeBit nftables.minSyncPeriod nftables.syncPeriod
    nodePortAddresses oomScoreAdj portRange showHiddenMetricsForVersion windowsRunAsService
    winkernel.enableDSR winkernel.forwardHealthCheckVip winkernel.networkName
    winkernel.rootHnsEndpointName winkernel.sourceVip
""")
ALL_FIELDS = sorted({*FIELDS_OF_1_25, *FIELDS_OF_1_36})

# Valid values for flags that don't accept a number.
VALUES = {
    "bind-address": "10.0.0.1",
    "cluster-cidr": "10.244.0.0/16",
    "config": "",
    "config-sync-period": "1m",
    "detect-local-mode": "NodeCIDR",
    "feature-gates": "A=true",
    "healthz-bind-address": "0.0.0.0",
    "iptables-min-sync-period": "1s",
    "iptables-sync-period": "1m",
    "logging-format": "json",
    "metrics-bind-address": "127.0.0.1",
    "nodeport-addresses": "10.0.0.0/8",
    "udp-timeout": "10s",
}


# --help and --version are parsed as flags of the command.
@pytest.mark.parametrize("flag", sorted({*ALL} - {"help", "version"}))
def test_every_flag_of_kube_proxy_is_accepted(flag):
    row = FLAGS.get(flag)
    is_switch = flag == "cleanup" or (row is not None and row.kind is BOOL)
    value = "true" if is_switch else VALUES.get(flag, "1s" if "timeout" in flag else "1")
    if row is not None and row.kind.name == "DURATION":
        value = "1s"
    read_flags([f"--{flag}={value}"])


def test_the_known_fields_equal_the_fields_of_kube_proxys_configuration():
    settings = {row.kube_field for row in TABLE.values() if row.kube_field}
    assert sorted(settings | set(FIELDS)) == ALL_FIELDS


def test_no_flag_is_both_a_setting_and_ignored():
    settings = {flag for row in TABLE.values() for flag in (row.flag, *row.aliases)}
    assert not settings & set(FLAGS)


def test_no_field_is_both_a_setting_and_ignored():
    assert not {row.kube_field for row in TABLE.values()} & set(FIELDS)


@pytest.mark.parametrize(
    ("row", "value", "is_harmless"),
    [
        pytest.param(FIELDS["iptables.masqueradeBit"], 0, True, id="zero"),
        pytest.param(FIELDS["iptables.masqueradeBit"], 14, False, id="number"),
        pytest.param(FIELDS["ipvs.tcpTimeout"], 0.0, True, id="no-duration"),
        pytest.param(FIELDS["ipvs.excludeCIDRs"], (), True, id="empty-list"),
        pytest.param(FIELDS["iptables.localhostNodePorts"], True, True, id="already-true"),
        pytest.param(FIELDS["logging.options.json.infoBufferSize"], "0", True, id="zero-as-text"),
    ],
)
def test_an_ignored_setting_is_harmless_if_it_requests_existing_behaviour(row, value, is_harmless):
    assert row.is_harmless(value) is is_harmless
