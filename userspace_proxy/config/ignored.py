"""The flags and fields of kube-proxy that have no effect here, each with the reason.

These are those of kube-proxy 1.25 (the last one with a userspace mode) and 1.36, without those in
:mod:`.settings`. Each has a kind, so that a wrong type is an error, and a reason, which is logged
for values that kubeadm doesn't write.
"""

from __future__ import annotations

from dataclasses import dataclass

from .kinds import ANY, BOOL, NUMBER, TEXT, Kind, duration, integer, texts

_INT = integer(-(2**31), 2**31 - 1)
_TEXTS = texts("TEXT,...", str)
_DURATION = duration()

_API_RATE = "two watches need no rate limit"
_API_FORM = "objects are read as JSON"
_IPVS = "there are no IPVS rules (docs/paths.md)"
_NFTABLES = "each change is written at once"
_MASQUERADE = "endpoints see the client's address where possible, see --preserve-client-address"
_LOCALHOST = "a proxy in userspace answers on localhost without a setting"
_CONNTRACK = "the size and other timeouts of the connection table are the node's own (sysctl)"
_DETECT_LOCAL = "local clients are recognized by CIDRs only"
_PROFILING = "there is no profiling server"
_METRICS = "no metric is hidden"
_OOM = "it is set in the pod or the systemd unit"
_HARD_FAIL = "a port that can't be opened is shown, logged and retried"
_WINDOWS = "this proxy runs only on Linux"
_KLOG = "the log goes to stderr, one record per line; see --v and --log-format"
_INIT_ONLY = "there is no separate step that needs more privileges"
_CADVISOR = "the machine's id isn't used"


@dataclass(frozen=True, slots=True)
class IgnoredSetting:
    """One flag or field of kube-proxy that has no effect."""

    kind: Kind
    reason: str
    harmless: tuple[object, ...] = ()
    """Values that request what happens anyway, besides the kind's zero."""

    def is_harmless(self, value: object) -> bool:
        """Return whether ignoring this value changes nothing."""
        return self.kind.is_unset(value) or value in self.harmless


def _rows(
    reason: str, kind: Kind, *names: str, harmless: tuple[object, ...] = ()
) -> dict[str, IgnoredSetting]:
    return {name: IgnoredSetting(kind, reason, harmless) for name in names}


FLAGS: dict[str, IgnoredSetting] = {
    **_rows(_API_RATE, NUMBER, "kube-api-burst", "kube-api-qps"),
    **_rows(_API_FORM, TEXT, "kube-api-content-type"),
    **_rows(_HARD_FAIL, BOOL, "bind-address-hard-fail"),
    **_rows(_PROFILING, BOOL, "profiling"),
    **_rows(_METRICS, TEXT, "show-hidden-metrics-for-version"),
    **_rows(_INIT_ONLY, BOOL, "init-only"),
    **_rows(_OOM, _INT, "oom-score-adj"),
    **_rows(_MASQUERADE, _INT, "iptables-masquerade-bit"),
    **_rows(_MASQUERADE, BOOL, "masquerade-all"),
    **_rows(_LOCALHOST, BOOL, "iptables-localhost-nodeports", harmless=(True,)),
    **_rows(_IPVS, TEXT, "ipvs-scheduler"),
    **_rows(_IPVS, _TEXTS, "ipvs-exclude-cidrs"),
    **_rows(_IPVS, BOOL, "ipvs-strict-arp"),
    **_rows(
        _IPVS, _DURATION,
        "ipvs-sync-period", "ipvs-min-sync-period",
        "ipvs-tcp-timeout", "ipvs-tcpfin-timeout", "ipvs-udp-timeout",
    ),
    **_rows(_DETECT_LOCAL, TEXT, "pod-bridge-interface", "pod-interface-name-prefix"),
    **_rows(_CONNTRACK, _INT, "conntrack-max-per-core", "conntrack-min"),
    **_rows(_CONNTRACK, BOOL, "conntrack-tcp-be-liberal"),
    **_rows(
        _CONNTRACK, _DURATION,
        "conntrack-udp-timeout", "conntrack-udp-timeout-stream",
    ),
    **_rows(_KLOG, _DURATION, "log-flush-frequency"),
    **_rows(
        _KLOG, BOOL,
        "add-dir-header", "alsologtostderr", "legacy-stderr-threshold-behavior",
        "log-json-split-stream", "log-text-split-stream", "logtostderr", "one-output",
        "skip-headers", "skip-log-headers",
    ),
    **_rows(
        _KLOG, TEXT,
        "alsologtostderrthreshold", "log-backtrace-at", "log-dir", "log-file",
        "log-file-max-size", "log-json-info-buffer-size", "log-text-info-buffer-size",
        "stderrthreshold", "vmodule",
    ),
    **_rows(_CADVISOR, TEXT, "boot-id-file", "machine-id-file"),
    **_rows(_WINDOWS, BOOL, "windows-service", "enable-dsr", "forward-healthcheck-vip"),
    **_rows(_WINDOWS, TEXT, "source-vip", "network-name", "root-hnsendpoint-name"),
}  # fmt: skip
"""By flag, without dashes."""

FIELDS: dict[str, IgnoredSetting] = {
    **_rows(_API_RATE, NUMBER, "clientConnection.burst", "clientConnection.qps"),
    **_rows(_API_FORM, TEXT, "clientConnection.acceptContentTypes", "clientConnection.contentType"),
    **_rows(_HARD_FAIL, BOOL, "bindAddressHardFail"),
    **_rows(_PROFILING, BOOL, "enableProfiling"),
    **_rows(_METRICS, TEXT, "showHiddenMetricsForVersion"),
    **_rows(_OOM, _INT, "oomScoreAdj"),
    **_rows(_MASQUERADE, _INT, "iptables.masqueradeBit", "nftables.masqueradeBit"),
    **_rows(_MASQUERADE, BOOL, "iptables.masqueradeAll", "nftables.masqueradeAll"),
    **_rows(_LOCALHOST, BOOL, "iptables.localhostNodePorts", harmless=(True,)),
    **_rows(_IPVS, TEXT, "ipvs.scheduler"),
    **_rows(_IPVS, _TEXTS, "ipvs.excludeCIDRs"),
    **_rows(_IPVS, BOOL, "ipvs.strictARP"),
    **_rows(
        _IPVS, _DURATION,
        "ipvs.syncPeriod", "ipvs.minSyncPeriod",
        "ipvs.tcpTimeout", "ipvs.tcpFinTimeout", "ipvs.udpTimeout",
    ),
    **_rows(_NFTABLES, _DURATION, "nftables.syncPeriod", "nftables.minSyncPeriod"),
    **_rows(_DETECT_LOCAL, TEXT, "detectLocal.bridgeInterface", "detectLocal.interfaceNamePrefix"),
    **_rows(_CONNTRACK, _INT, "conntrack.maxPerCore", "conntrack.min"),
    **_rows(_CONNTRACK, BOOL, "conntrack.tcpBeLiberal"),
    **_rows(
        _CONNTRACK, _DURATION,
        "conntrack.udpTimeout", "conntrack.udpStreamTimeout",
    ),
    **_rows(_KLOG, ANY, "logging.flushFrequency", harmless=(5_000_000_000, "5s")),
    **_rows(_KLOG, ANY, "logging.vmodule"),
    **_rows(_KLOG, BOOL, "logging.options.json.splitStream", "logging.options.text.splitStream"),
    **_rows(
        _KLOG, ANY, "logging.options.json.infoBufferSize", "logging.options.text.infoBufferSize"
    ),
    **_rows(_WINDOWS, TEXT, "winkernel.networkName", "winkernel.sourceVip"),
    **_rows(_WINDOWS, TEXT, "winkernel.rootHnsEndpointName"),
    **_rows(_WINDOWS, BOOL, "winkernel.enableDSR", "winkernel.forwardHealthCheckVip"),
    **_rows(_WINDOWS, BOOL, "windowsRunAsService"),
}  # fmt: skip
"""By path in KubeProxyConfiguration."""
