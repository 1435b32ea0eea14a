"""This proxy accepts exactly the configurations that kube-proxy accepts."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from userspace_proxy.config.load import load_settings
from userspace_proxy.errors import ConfigError

from .nodes.programs import Programs

pytestmark = pytest.mark.cluster

HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
TEXTS = {
    "empty": "",
    "field-twice": "mode: iptables\nmode: ipvs\n",
    "mapping-twice": "iptables: {syncPeriod: 1s}\niptables: {masqueradeAll: true}\n",
    "unknown-field": "clusterCidr: 10.0.0.0/8\n",
    "unknown-field-inside": "iptables: {xyzzy: 1}\n",
    "removed-field": "udpIdleTimeout: 250ms\nresourceContainer: /kube-proxy\n",
    "octal": "conntrack: {min: 010}\n",
    "other-numbers": "oomScoreAdj: -9_99\nconntrack: {min: 1e3, maxPerCore: 0b11}\n",
    "word-for-text": "hostnameOverride: on\n",
    "quoted-word": 'enableProfiling: "yes"\n',
    "infinite": "clientConnection: {qps: .inf}\n",
    "word-for-true": "enableProfiling: yes\n",
    "quoted-true": 'enableProfiling: "true"\n',
    "quoted-number": 'oomScoreAdj: "-5"\n',
    "number-as-text": "clusterCIDR: 5\n",
    "number-as-duration": "configSyncPeriod: 5\n",
    "duration": "configSyncPeriod: 1h30m\n",
    "no-duration": "configSyncPeriod: soon\n",
    "null": "mode: null\niptables: null\nconntrack: {min: null}\n",
    "another-document": "mode: iptables\n---\nkind: X\n",
    "a-second-one": f"mode: iptables\n---\n{HEAD}mode: nftables\n",
    "end-of-document": "mode: iptables\n...\n",
    "begin-alone": "mode: iptables\n---\n",
    "anchor": "x: &a {syncPeriod: 30s}\niptables: *a\n",
    "merge-key": "x: &a {syncPeriod: 30s}\niptables: {<<: *a}\n",
    "numeric-key": "80: x\n",
    "tab": "iptables:\n\tsyncPeriod: 30s\n",
    "list-for-mapping": "iptables: []\n",
    "text-for-list": "nodePortAddresses: 10.0.0.0/8\n",
    "list": "nodePortAddresses: [10.0.0.0/8]\n",
    "float-for-number": "clientConnection: {qps: 5.5, burst: 10.0}\n",
    "crlf": "mode: iptables\r\nclusterCIDR: 10.0.0.0/8\r\n",
    "tag": "clusterCIDR: !!str 10.0.0.0/8\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in TEXTS.items()])
def test_configurations_are_accepted_exactly_when_kube_proxy_accepts_them(
    node_programs: Programs, tmp_path: Path, text: str, encoding: str
) -> None:
    path = tmp_path / "config.conf"
    path.write_bytes((HEAD + text).encode(encoding))
    command = [
        str(node_programs["kube-proxy"]),
        f"--config={path}",
        f"--write-config-to={tmp_path}/out",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    try:
        load_settings([f"--config={path}"])
        problem = ""
    except ConfigError as exc:
        problem = str(exc)
    assert (done.returncode == 0) == (not problem), f"{done.stderr[-300:]}; here: {problem}"
