"""Lists the flags and fields of kube-proxy that have no effect here, with the reasons.

They are the flags and fields of kube-proxy 1.25 (the last version with a userspace mode) and 1.36,
and older flags, except those in :mod:`.settings`. Each has a kind, so that a wrong type is an
error, and a reason, logged for each flag, and for each field whose value kubeadm doesn't write.

Rule 1: a setting without effect in the modes from which clusters migrate has no effect here either,
even if it could: it was never tried, and its old default may break clients (``udpIdleTimeout:
250ms``).
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
_UDP_FLOWS = (
    "only kube-proxy's removed userspace mode obeyed it, by default with 250ms, which splits "
    "flows; UDP flows live as conntrack's do, or as long as --udp-idle-timeout says"
)
_PROXY_PORTS = "only kube-proxy's removed userspace mode obeyed it; see --proxy-ports"
_REMOVED = "kube-proxy has removed it"
_INIT_ONLY = "there is no separate step that needs more privileges"
_CADVISOR = "the machine's id isn't used"


_THERE = {
    _UDP_FLOWS: "nowhere since 1.26",
    _PROXY_PORTS: "nowhere since 1.26",
    _REMOVED: "nowhere",
    _CADVISOR: "nowhere",
    _IPVS: "mode ipvs",
    _NFTABLES: "mode nftables",
    _MASQUERADE: "the mode of its name; iptables also in mode ipvs",
    _LOCALHOST: "mode iptables",
    _WINDOWS: "on Windows",
}
"""Where kube-proxy honours a setting that this proxy ignores, keyed by the reason for ignoring it.

A setting with any other reason is honoured in every mode.
"""


@dataclass(frozen=True, slots=True)
class IgnoredSetting:
    """One flag or field of kube-proxy that has no effect."""

    kind: Kind
    reason: str
    there: str
    """Where the setting has an effect in kube-proxy: ``everywhere``, or in some modes."""
    harmless: tuple[object, ...] = ()
    """Values that request the actual behaviour, in addition to the kind's unset values."""

    def is_harmless(self, value: object) -> bool:
        return self.kind.is_unset(value) or value in self.harmless


def _rows(
    reason: str, kind: Kind, *names: str, harmless: tuple[object, ...] = ()
) -> dict[str, IgnoredSetting]:
    there = _THERE.get(reason, "everywhere")
    return {name: IgnoredSetting(kind, reason, there, harmless) for name in names}


FLAGS: dict[str, IgnoredSetting] = {
    **_rows(_UDP_FLOWS, _DURATION, "udp-timeout"),
    **_rows(_PROXY_PORTS, TEXT, "proxy-port-range"),
    **_rows(_API_RATE, NUMBER, "kube-api-burst", "kube-api-qps"),
    **_rows(_API_FORM, TEXT, "kube-api-content-type"),
    **_rows(_HARD_FAIL, BOOL, "bind-address-hard-fail"),
    **_rows(_PROFILING, BOOL, "profiling"),
    **_rows(_METRICS, TEXT, "show-hidden-metrics-for-version"),
    **_rows(_INIT_ONLY, BOOL, "init-only"),
    **_rows(_OOM, _INT, "oom-score-adj"),
    **_rows(_MASQUERADE, _INT, "iptables-masquerade-bit"),
    **_rows(_MASQUERADE, BOOL, "masquerade-all"),
    **_rows(_LOCALHOST, BOOL, "iptables-localhost-nodeports"),
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
    **_rows(_REMOVED, _INT, "conntrack-max"),
    **_rows(
        _REMOVED, TEXT,
        "application-metrics-count-limit", "azure-container-registry-config",
        "cloud-provider-gce-l7lb-src-cidrs", "cloud-provider-gce-lb-src-cidrs", "container-hints",
        "containerd", "default-not-ready-toleration-seconds",
        "default-unreachable-toleration-seconds", "docker", "docker-env-metadata-whitelist",
        "docker-root", "docker-tls-ca", "docker-tls-cert", "docker-tls-key",
        "event-storage-age-limit", "event-storage-event-limit", "global-housekeeping-interval",
        "google-json-key", "housekeeping-interval", "resource-container",
        "storage-driver-buffer-duration", "storage-driver-db", "storage-driver-host",
        "storage-driver-password", "storage-driver-table", "storage-driver-user",
    ),
    **_rows(
        _REMOVED, BOOL,
        "allow-dynamic-housekeeping", "allow-verification-with-non-compliant-keys", "cleanup-ipvs",
        "docker-only", "docker-tls", "enable-load-reader", "log-cadvisor-usage",
        "storage-driver-secure",
    ),
}  # fmt: skip
"""The ignored flags by name, without dashes."""

FIELDS: dict[str, IgnoredSetting] = {
    # Any value is accepted, because kube-proxy no longer has this field.
    **_rows(_UDP_FLOWS, ANY, "udpIdleTimeout", harmless=("0s",)),
    **_rows(_PROXY_PORTS, TEXT, "portRange", harmless=("0-0",)),
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
"""The ignored fields by path in KubeProxyConfiguration."""
