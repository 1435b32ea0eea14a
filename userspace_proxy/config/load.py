"""Combines flags, the file and defaults into the settings of a run.

Rule 1: flags take precedence over the file, and the file over defaults. (kube-proxy ignores most
flags if there is a file, but a flag is always deliberate.)
Rule 2: an odd but valid setting causes a warning, which is returned, not logged.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import ConfigError
from ..model import SocketAddress
from .flags import Flags, read_flags
from .setting_table import Origin
from .settings import TABLE, Settings

# Fields whose flags kube-proxy obeys even if there is a file. Source: its Options.Complete.
_OBEYED_BESIDE_A_FILE = ("hostnameOverride", "logging.verbosity", "logging.format")
# The sync periods, which kube-proxy ignores in some modes. Source: kube-proxy's
# Options.processV1Alpha1Flags and conversion of v1alpha1.
_PERIODS = ("iptables_sync_period_s", "iptables_min_sync_period_s")
_WITHOUT_PERIODS = {"flag": ("ipvs",), "file": ("ipvs", "nftables")}
# The start of Kubernetes' default --service-node-port-range; Linux' ip_local_port_range follows it.
_NODE_PORTS_FIRST = 30000


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and warnings about them for the log."""

    settings: Settings
    warnings: tuple[str, ...]


def load_settings(words: Sequence[str]) -> Loaded:
    """Read a command line and the file that it names.

    Raises:
        ConfigError: The file can't be read, or a flag, a field or their combination is invalid.
    """
    return load_flags(read_flags(words))


def load_flags(flags: Flags) -> Loaded:
    """Combine flags with the file that they name, and with the defaults.

    Raises:
        ConfigError: The file can't be read, or a field or the combination is invalid.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    texts: dict[str, str] = {}
    warnings = list(flags.warnings)
    if path := flags.values.get("config_file"):
        # Imported here because a run without a file needs no YAML reader.
        from .kubeproxy import read_config_file

        file = read_config_file(path)
        values.update(file.values)
        texts.update(file.texts)
        origins.update(dict.fromkeys(file.values, "file"))
        warnings += file.warnings
        if file.is_kube_proxys:
            warnings += _overrides(flags, file.values)
    values.update(flags.values)
    texts.update(flags.texts)
    origins.update(dict.fromkeys(flags.values, "flag"))
    for name in _PERIODS:
        if name in values and values.get("proxy_mode") in _WITHOUT_PERIODS[origins[name]]:
            del values[name], origins[name]
            warnings.append(
                f"{texts[name]} has no effect: kube-proxy doesn't obey it in mode "
                f"{values['proxy_mode']}"
            )
    warnings += _default_of_mode(values, origins, texts)
    settings = _with_family_defaults(Settings(**values, origins=origins))
    _check(settings)
    warnings += _without_effect(values, texts)
    warnings += _oddities(settings)
    return Loaded(settings, tuple(warnings))


def _default_of_mode(
    values: dict[str, Any], origins: dict[str, Origin], texts: Mapping[str, str]
) -> Iterator[str]:
    """In mode nftables, set node ports' default to the primary addresses; yield a warning.

    This doesn't apply to manifests, which may lack the Node whose addresses the default means.
    Source: kube-proxy's SetDefaults_KubeProxyConfiguration.
    """
    mode, name = values.get("proxy_mode"), "nodeport_addresses"
    if mode != "nftables" or values.get(name) or values.get("manifests"):
        return
    values[name], origins[name] = ("primary",), origins["proxy_mode"]
    yield (
        f"{texts['proxy_mode']}: node ports are served at the node's primary addresses, as in that "
        "mode of kube-proxy; --nodeport-addresses=all serves them at all"
    )


def _with_family_defaults(settings: Settings) -> Settings:
    """Return the settings, with IPv6 defaults for servers if the bind address is an IPv6 address.

    Source: kube-proxy's getDefaultAddresses.
    """
    if ":" not in settings.bind_address:
        return settings
    defaults: dict[str, Any] = {
        "healthz_bind_address": SocketAddress("::", 10256),
        "metrics_bind_address": SocketAddress("::1", 10249),
    }
    return replace(settings, **{n: a for n, a in defaults.items() if n not in settings.origins})


def _check(settings: Settings) -> None:
    """Raise ConfigError if two settings exclude each other."""
    if settings.iptables_min_sync_period_s > settings.iptables_sync_period_s:
        raise ConfigError(
            "--iptables-min-sync-period is longer than --iptables-sync-period",
            hint="kube-proxy refuses that too",
        )
    health, metrics = settings.healthz_bind_address, settings.metrics_bind_address
    # Port 0 means any free port, so two such ports differ.
    if health is not None and health == metrics and health[-1] != 0:
        raise ConfigError(
            f"--healthz-bind-address and --metrics-bind-address are both {health}",
            hint="one is for load balancers, the other for this node's operator",
        )


def _overrides(flags: Flags, of_file: Mapping[str, Any]) -> Iterator[str]:
    """Yield warnings about flags that kube-proxy would ignore because of its file."""
    defaults = Settings()
    for name, value in flags.values.items():
        field = TABLE[name].kube_field
        is_obeyed = not field or field in _OBEYED_BESIDE_A_FILE or TABLE[name].no_effect
        if not is_obeyed and value != of_file.get(name, getattr(defaults, name)):
            yield (
                f"{flags.texts[name]} overrides {field} of the file; kube-proxy would ignore the "
                "flag, so remove it if it is an old one"
            )


def _without_effect(values: Mapping[str, Any], texts: Mapping[str, str]) -> Iterator[str]:
    defaults = Settings()
    for name, row in TABLE.items():
        quiet = (getattr(defaults, name), *row.harmless)
        if row.no_effect and name in values and values[name] not in quiet:
            yield f"{texts[name]} has no effect: {row.no_effect}"


def _oddities(settings: Settings) -> Iterator[str]:
    if settings.manifests:
        for name in ("kubeconfig", "master"):
            if getattr(settings, name):
                yield f"--{name} isn't used: Services come from --manifests={settings.manifests}"
        if settings.allow_wake:
            yield "--allow-wake isn't used: with manifests there is no cluster to scale in"
        if settings.allow_node_endpoints:
            yield "--allow-node-endpoints isn't needed: manifests may name this node's addresses"
        if settings.endpoints_from_pods:
            yield "--endpoints-from-pods isn't used: manifests contain EndpointSlices, not Pods"
    elif "service_cluster_ip_range" in settings.origins:
        yield "--service-cluster-ip-range isn't used: the API server allocates ClusterIPs"
    if settings.dns_upstream is not None and settings.dns_bind_address is None:
        yield "--dns-upstream isn't used: without --dns-bind-address no names are answered"
    if settings.proxy_port_range.last >= _NODE_PORTS_FIRST:
        yield (
            f"--proxy-ports={settings.proxy_port_range} overlaps node ports (from 30000) "
            "or ephemeral ports (from 32768): a proxy port may be in use when it is needed"
        )
