"""The chart: helm and the real API server accept its objects, and it rejects bad values."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.chart import CHART

from .build import BuildError
from .chart import KUBE_PROXY, MANIFESTS, kubeadm_phase, objects_of, render, run
from .control_plane import ControlPlane
from .waiting import wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("helm")]

ROOT = Path(__file__).parents[2]
SETS = sorted((CHART / "ci").glob("*-values.yaml"))
PHASES = ("take-over", "standby", "original")
API_SERVER = "--set=apiServer.host=api.cluster.example"
PLACEHOLDERS = {
    "charts/userspace-proxy": str(CHART),
    "kube-proxy.yaml": str(KUBE_PROXY),
    "ADDRESS": "192.0.2.10",
    "HOST": "192.0.2.10",
    "PODS": "10.244.0.0/16",
    "PORT": "6443",
}
POD_MONITORS = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: podmonitors.monitoring.coreos.com}
spec:
  group: monitoring.coreos.com
  names: {kind: PodMonitor, plural: podmonitors}
  scope: Namespaced
  versions:
  - name: v1
    served: true
    storage: true
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
"""


def own(*values: str) -> Any:
    """Return the chart's DaemonSet."""
    return objects_of(render(API_SERVER, *values))["DaemonSet", "userspace-proxy"]


def taken_over(*values: str) -> Any:
    """Return kubeadm's DaemonSet with this proxy."""
    objects = objects_of(kubeadm_phase("take-over", KUBE_PROXY, *values))
    return objects["DaemonSet", "kube-proxy"]


def settings_of(*values: str) -> Any:
    """Return this proxy's own settings in the chart's configuration."""
    objects = objects_of(render(API_SERVER, *values))
    data = objects["ConfigMap", "userspace-proxy"]["data"]
    return list(yaml.safe_load_all(data["config.conf"]))[1]


def container_of(daemon_set: Any) -> Any:
    (container,) = daemon_set["spec"]["template"]["spec"]["containers"]
    return container


@pytest.fixture(scope="module")
def api_server(control_plane: ControlPlane) -> ControlPlane:
    """An API server with the kind PodMonitor and the namespace of the Leases."""
    # Because of the dry run, the Namespace isn't created for the objects in it.
    control_plane.kubectl("create", "namespace", "userspace-proxy")
    control_plane.kubectl("apply", "-f", "-", input=POD_MONITORS)
    wait_for(
        "PodMonitors to be served",
        lambda: "PodMonitor" in control_plane.kubectl("api-resources", check=False),
    )
    return control_plane


def assert_accepted(api_server: ControlPlane, text: str) -> None:
    done = api_server.kubectl(
        "apply", "--dry-run=server", "--validate=strict", "-f", "-", input=text
    )
    assert done.count("(server dry run)") == len(list(yaml.safe_load_all(text))) > 0


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem.removesuffix("-values"))
def test_helm_lint_accepts_each_set_of_values(values: Path) -> None:
    done = run("lint", "--strict", "--quiet", f"--values={values}", CHART)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("values", SETS, ids=lambda path: path.stem.removesuffix("-values"))
def test_the_api_server_accepts_every_object_of_a_set_of_values(
    api_server: ControlPlane, values: Path
) -> None:
    assert_accepted(api_server, render(f"--values={values}"))


@pytest.mark.parametrize("phase", PHASES)
def test_the_api_server_accepts_every_object_of_a_takeover_phase(
    api_server: ControlPlane, phase: str
) -> None:
    assert_accepted(api_server, kubeadm_phase(phase))


def documented() -> Iterator[tuple[str, str]]:
    """Yield each documented command, with a name."""
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text().replace("\\\n", " ")
        for number, found in enumerate(
            re.finditer(r"^\$ helm (?:install|template) (.*)", text, re.MULTILINE)
        ):
            yield f"{page.name}-{number + 1}", found[1]


@pytest.mark.parametrize(
    "command", [pytest.param(command, id=name) for name, command in documented()]
)
def test_each_documented_helm_command_renders(command: str) -> None:
    words = shlex.split(command.partition(" | ")[0], comments=True)
    placed = [re.sub("|".join(PLACEHOLDERS), lambda f: PLACEHOLDERS[f[0]], word) for word in words]
    done = run("template", *placed)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("path", "make"), [pytest.param(*item, id=item[0].name) for item in MANIFESTS.items()]
)
def test_each_plain_manifest_matches_the_rendered_chart(
    path: Path, make: Callable[[str], str]
) -> None:
    text = path.read_text()
    assert make(text) == text, "renew it: make manifests"


HOSTS_THAT_CANT_WORK = {
    "10.0.0.1:6443": "write the host alone: its port is apiServer.port",
    "[fd00::1]": "write the address without brackets",
    "0.0.0.0": "no API server has this address",
    "239.1.1.1": "no API server has this address",
    "kubernetes.default": "Services' names work only once this proxy runs",
    "10.0.0.256": "it is neither an address nor a name",
    "fd00::1::2": "it is neither an address nor a name",
    "api example": "it is neither an address nor a name",
}
HOSTS_THAT_MAY_WORK = [
    "10.0.0.1", "fd00::1", "::1", "1:2:3:4:5:6:7:8", "localhost", "kind-control-plane",
    "api.example.com", "kubernetes.example.com.",
]  # fmt: skip
NO_NETWORKS = {
    "10.244.0.0/99": "the prefix of a network of IPv4 has at most 32 bits",
    "fd00::/129": "the prefix of a network of IPv6 has at most 128 bits",
    "10.244.0.0": "it isn't a network",
    "fd00::1::/64": "it isn't a network",
    "10.244.0.0/16 ": "it isn't a network",
}


@pytest.mark.parametrize("host", HOSTS_THAT_MAY_WORK)
def test_an_api_server_host_reachable_from_nodes_is_accepted(host: str) -> None:
    objects = objects_of(render(f"--set=apiServer.host={host}"))
    assert objects["ConfigMap", "userspace-proxy"]["data"]["api-server-host"] == host


@pytest.mark.parametrize(
    ("value", "refusal"),
    [
        pytest.param("sterring=none", "'sterring' not allowed", id="misspelled"),
        pytest.param(
            "apiServer.host=https://10.0.0.1",
            'apiServer.host is "https://10.0.0.1": write the host alone, without https://',
            id="url",
        ),
        *(
            pytest.param(f"apiServer.host={host}", f'apiServer.host is "{host}": {words}', id=host)
            for host, words in HOSTS_THAT_CANT_WORK.items()
        ),
        pytest.param("apiServer.port=0", "at '/apiServer/port': minimum", id="port"),
        *(
            pytest.param(
                f"clusterCIDR=10.96.0.0/12\\,{text}",
                f'clusterCIDR contains "{text}": {words}',
                id=f"network-{text}",
            )
            for text, words in NO_NETWORKS.items()
        ),
        pytest.param(
            "metrics.host=10.0.0.1:10249",
            'metrics.host is "10.0.0.1:10249": write an address, without a port',
            id="metrics-port",
        ),
        pytest.param(
            "canary.name=a,canary.healthPort=10349",
            "canary.healthPort and canary.metricsPort are both 10349",
            id="same-port",
        ),
        pytest.param("canary.name=a b", 'canary.name is "a b": write the value of a', id="canary"),
        pytest.param("extraFlags={-v}", 'extraFlags is "-v": write a flag', id="flag"),
        pytest.param("extraFlags={--v=2,}", 'extraFlags is "": write a flag', id="no-flag"),
        pytest.param(
            "image.repository=host/name:tag",
            'image.repository is "host/name:tag": write it without a tag',
            id="image",
        ),
        pytest.param("image.tag=a:b", 'image.tag is "a:b": write TAG, or', id="tag"),
        pytest.param("fullnameOverride=A", 'fullnameOverride is "A": write a name', id="name"),
        pytest.param("view.create=yes", "at '/view/create': got string, want boolean", id="view"),
        pytest.param("wake.namespaces={Shop}", 'wake.namespaces is "Shop"', id="namespace"),
        pytest.param(
            "allowEndpointNames={*.example.com}",
            'allowEndpointNames is "*.example.com": write a name in small letters and without *',
            id="suffix",
        ),
        pytest.param(
            "metrics.podMonitor.interval=1d",
            'metrics.podMonitor.interval is "1d": write a duration, such as 30s',
            id="interval",
        ),
        pytest.param(
            "allowEndpointNames={example.com}",
            "allowEndpointNames needs clusterCIDR",
            id="names-without-networks",
        ),
        pytest.param(
            "updateStrategy.rollingUpdate.maxSurge=all",
            "at '/updateStrategy/rollingUpdate/maxSurge'",
            id="surge",
        ),
        pytest.param("kubeadm.phase=undo", "at '/kubeadm/phase': value must be one of", id="phase"),
        pytest.param(
            "steering=iptables,path=kernel",
            "at '/steering': value must be one of 'auto', 'nftables'",
            id="path-without-nftables",
        ),
        pytest.param(
            "steering=local,socketLB=auto",
            "at '/steering': value must be one of 'auto', 'nftables'",
            id="socket-lb-without-nftables",
        ),
        pytest.param(
            "kubeadm.phase=standby,canary.name=canary", "at '/canary/name'", id="canary-and-kubeadm"
        ),
        pytest.param("apiServer.host=", "set apiServer.host to an address", id="no-address"),
        pytest.param("kubeadm.phase=standby", "set kubeadm.daemonSet, by", id="no-daemon-set"),
        pytest.param("serviceAccount.create=false", "set serviceAccount.name", id="no-account"),
        pytest.param(
            "metrics.podMonitor.enabled=true", "podMonitor needs metrics.host", id="loopback"
        ),
    ],
)
def test_an_invalid_value_is_rejected_with_a_line_naming_it(value: str, refusal: str) -> None:
    with pytest.raises(BuildError) as refused:
        render(API_SERVER, f"--set={value}")
    (line,) = [line for line in str(refused.value).splitlines() if refusal in line]
    assert len(line) < 300


WITH_ALL = (
    "--set=steering=nftables,path=kernel,socketLB=auto,clusterCIDR=10.244.0.0/16,view.create=true",
    "--set=wake.namespaces={shop},allowEndpointNames={example.com},metrics.host=0.0.0.0",
    "--set=metrics.podMonitor.enabled=true",
    API_SERVER,
)
"""Values with which the templates use all values."""
RELEASES = {
    "without-options": (API_SERVER, "--set=steering=iptables"),
    "canary": (*WITH_ALL, "--set=canary.name=try"),
    "take-over": (
        *WITH_ALL,
        "--set=kubeadm.phase=take-over",
        f"--set-file=kubeadm.daemonSet={KUBE_PROXY}",
    ),
    "standby": ("--set=kubeadm.phase=standby", f"--set-file=kubeadm.daemonSet={KUBE_PROXY}"),
}
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart that also renders its notes as an object."""
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    notes = (copy / "templates/NOTES.txt").read_text()
    (copy / "templates/notes.yaml").write_text(
        f'{{{{- define "notes" }}}}{notes}{{{{ end -}}}}\n'
        'kind: ConfigMap\nmetadata: {name: notes}\ndata: {text: {{ include "notes" . | quote }}}\n'
    )
    return copy


def rendered(chart: Path, values: dict[str, Any]) -> dict[str, str]:
    """Render each kind of release with these values instead of the chart's values."""
    (chart / "values.yaml").write_text(yaml.safe_dump(values))
    texts = {}
    for name, options in RELEASES.items():
        done = run("template", "r", chart, *options)
        assert done.returncode == 0, f"{name}: {done.stderr}"
        texts[name] = done.stdout
    return texts


def paths_of(values: dict[str, Any], *above: str) -> Iterator[tuple[str, ...]]:
    for name, value in values.items():
        yield (*above, name)
        if isinstance(value, dict):
            yield from paths_of(value, *above, name)


def without(values: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    first, *rest = path
    inner = {first: without(values[first], tuple(rest))} if rest else {}
    return {name: value for name, value in values.items() if name != first} | inner


def test_values_of_older_charts_render_with_newer_defaults(chart: Path) -> None:
    whole = rendered(chart, VALUES)
    assert all("kind: ConfigMap" in text for text in whole.values())
    for path in paths_of(VALUES):
        # The templates have no defaults for these fields of Kubernetes objects, so that null can
        # remove them; omitting them here changes the output.
        if path[0] not in ("resources", "nodeSelector"):
            assert rendered(chart, without(VALUES, path)) == whole, ".".join(path)
        else:
            rendered(chart, without(VALUES, path))
    assert rendered(chart, {}).keys() == whole.keys()


def test_a_value_removed_from_the_chart_is_not_an_error(chart: Path) -> None:
    assert rendered(chart, VALUES | {"socketLBProxyPorts": True})


def test_null_removes_the_defaults_of_kubernetes_fields() -> None:
    daemon_set = own("--set=resources=null", "--set=nodeSelector.kubernetes\\.io/os=null")
    assert "resources" not in container_of(daemon_set)
    assert "nodeSelector" not in daemon_set["spec"]["template"]["spec"]


def test_a_canary_has_its_own_labels_ports_and_flags() -> None:
    values = f"--values={CHART / 'ci/canary-values.yaml'}"
    node = own()
    name = "userspace-proxy-canary"
    objects = objects_of(render(values, release=name))
    canary = objects["DaemonSet", name]
    container = container_of(canary)
    assert node["spec"]["selector"] != canary["spec"]["selector"]
    assert container["livenessProbe"]["httpGet"]["port"] == 10356
    assert container["args"][-3:] == [
        "--service-proxy-name=canary",
        "--healthz-bind-address=0.0.0.0:10356",
        "--metrics-bind-address=127.0.0.1:10349",
    ]
    # The Service "kubernetes" is served by kube-proxy.
    names = [variable["name"] for variable in container["env"]]
    assert names == ["NODE_NAME", "POD_NAMESPACE", "POD_NAME"]
    assert set(objects["ConfigMap", name]["data"]) == {"config.conf"}


def test_all_deployment_methods_grant_the_agent_the_same_capabilities() -> None:
    canary = own("--set=canary.name=a", "--set=fullnameOverride=userspace-proxy")
    containers = [container_of(daemon_set) for daemon_set in (own(), canary, taken_over())]
    for field in ("image", "securityContext", "resources"):
        assert containers[0][field] == containers[1][field] == containers[2][field], field


def test_only_local_steering_gets_the_capability_for_low_ports() -> None:
    def added(steering: str) -> list[str]:
        context = container_of(own(f"--set=steering={steering}"))["securityContext"]
        return list(context["capabilities"]["add"])

    assert added("local") == [*added("nftables"), "NET_BIND_SERVICE"]


def rights_of(daemon_set: Any) -> tuple[set[str], set[str], dict[str, bool]]:
    """Return the capabilities, and the host paths with whether each is mounted read-only."""
    container = container_of(daemon_set)
    volumes = daemon_set["spec"]["template"]["spec"]["volumes"]
    paths = {v["name"]: v["hostPath"]["path"] for v in volumes if "hostPath" in v}
    mounts = [mount for mount in container["volumeMounts"] if mount["name"] in paths]
    assert {mount["name"] for mount in mounts} == set(paths)
    added = set(container["securityContext"]["capabilities"]["add"])
    return added, set(paths.values()), {m["mountPath"]: m.get("readOnly", False) for m in mounts}


@pytest.mark.parametrize("value", ["auto", "required"])
@pytest.mark.parametrize("is_kubeadm", [False, True], ids=["own", "kubeadm"])
def test_socket_lb_adds_one_capability_and_two_host_paths(value: str, is_kubeadm: bool) -> None:
    daemon_set = taken_over if is_kubeadm else own
    without, more = rights_of(daemon_set()), rights_of(daemon_set(f"--set=socketLB={value}"))
    assert more[0] - without[0] == {"BPF"}
    assert more[1] - without[1] == {"/sys/fs/cgroup", "/sys/fs/bpf"}
    # The mount points are neither /sys/fs/cgroup, which has the container's own memory limit, nor
    # below /sys/fs/bpf, where AppArmor's default profile denies containers all writes.
    assert {k: v for k, v in more[2].items() if k not in without[2]} == {
        "/host/sys/fs/cgroup": True,
        "/host/sys/fs/bpf": False,
    }


def test_an_unquoted_socket_lb_off_renders_the_defaults(tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text("socketLB: off\n")
    assert render(API_SERVER, f"--values={values}") == render(API_SERVER)


def test_socket_lb_values_become_agent_settings() -> None:
    settings = settings_of("--set=socketLB=required,socketLBHostOnly=true")
    assert (settings["socketLB"], settings["socketLBHostOnly"]) == ("required", True)


def test_a_wake_namespace_gets_a_role_binding_and_an_agent_setting() -> None:
    objects = objects_of(render(f"--values={CHART / 'ci/wake-values.yaml'}"))
    assert settings_of("--set=wake.namespaces={shop}")["allowWake"] is True
    assert ("ClusterRole", "userspace-proxy-wake") in objects
    leases = objects["Role", "userspace-proxy-leases"]
    assert leases["metadata"]["namespace"] == "userspace-proxy"
    assert ("Namespace", "userspace-proxy") in objects
    plain = objects_of(render(API_SERVER))
    assert not [name for _, name in plain if name.endswith(("wake", "leases"))]
    second = "--set=wake.createNamespace=false"
    values = f"--values={CHART / 'ci/wake-values.yaml'}"
    assert ("Namespace", "userspace-proxy") not in objects_of(render(values, second))


@pytest.mark.parametrize("phase", [None, "take-over"], ids=["own", "kubeadm"])
def test_roles_for_users_are_created_only_on_request_and_bind_no_subject(phase: str | None) -> None:
    def objects(*values: str) -> dict[tuple[str, str], Any]:
        text = kubeadm_phase(phase, KUBE_PROXY, *values) if phase else render(API_SERVER, *values)
        return objects_of(text)

    plain, more = objects(), objects("--set=view.create=true")
    roles = {("ClusterRole", "userspace-proxy-view"), ("Role", "userspace-proxy-view")}
    assert more.keys() - plain.keys() == roles
    assert more["Role", "userspace-proxy-view"]["metadata"]["namespace"] == "kube-system"


def test_allowed_endpoint_names_become_an_agent_setting() -> None:
    names = "--set=clusterCIDR=10.244.0.0/16,allowEndpointNames={example.com,example.net}"
    assert settings_of(names)["allowEndpointNames"] == ["example.com", "example.net"]


def test_a_configuration_change_replaces_the_pods() -> None:
    def annotations(*values: str) -> Any:
        return own(*values)["spec"]["template"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations() != annotations("--set=steering=none")


def test_a_takeover_adds_flags_only_for_values_that_are_set() -> None:
    def command(*values: str) -> list[str]:
        return list(container_of(taken_over(*values))["command"])

    (original,) = yaml.safe_load_all(KUBE_PROXY.read_text())
    added = ["--take-over", "--ready-socket=/dev/shm/userspace-proxy.ready"]
    assert command() == [*container_of(original)["command"], *added]
    values = "steering=nftables,path=auto,wake.namespaces={shop},metrics.host=0.0.0.0"
    hooks = "--set=socketLB=auto,socketLBHostOnly=true"
    assert command(f"--set={values}", hooks, "--set=extraFlags={--metrics-detail=node}") == [
        *command(),
        "--path=auto",
        "--steering=nftables",
        "--socket-lb=auto",
        "--socket-lb-host-only",
        "--allow-wake",
        "--metrics-bind-address=0.0.0.0:10249",
        "--metrics-detail=node",
    ]


def test_the_startup_probe_connects_to_the_agents_own_ready_socket() -> None:
    container = container_of(own())
    assert container["startupProbe"] == container_of(taken_over())["startupProbe"]
    program = container["startupProbe"]["exec"]["command"][-1]
    (flag,) = (flag for flag in container["args"] if flag.startswith("--ready-socket="))
    path = flag.partition("=")[2]
    assert f'connect_ex("{path}")' in program
    run = [sys.executable, "-ISc", program]
    ended = subprocess.run(run, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr[:15]) == (1, "this pod serves")


def test_a_standby_serves_its_probes_on_its_own_ports(tmp_path: Path) -> None:
    daemon_set = objects_of(kubeadm_phase("standby"))["DaemonSet", "kube-proxy-standby"]
    pod = daemon_set["spec"]["template"]["spec"]
    kube_proxy, asks = pod["containers"]
    given, own = tmp_path / "config.conf", tmp_path / "own.conf"
    given.write_text('mode: ""\nhealthzBindAddress: ""\nmetricsBindAddress: ""')
    command = pod["initContainers"][0]["command"][-1]
    for place, path in (("/var/lib/kube-proxy/config.conf", given), ("/standby/config.conf", own)):
        command = command.replace(place, str(path))
    subprocess.run(["sh", "-c", command], check=True)
    assert yaml.safe_load(own.read_text()) == {
        "mode": "",
        "healthzBindAddress": "127.0.0.1:10366",
        "metricsBindAddress": "127.0.0.1:10369",
    }
    assert kube_proxy["command"][1] == "--config=/standby/config.conf"
    assert "127.0.0.1:10369/metrics" in asks["startupProbe"]["exec"]["command"][-1]


def test_a_taken_over_daemon_set_has_the_charts_update_strategy() -> None:
    spec = taken_over()["spec"]
    for field in ("updateStrategy", "minReadySeconds"):
        assert spec[field] == own()["spec"][field], field
    (original,) = yaml.safe_load_all(KUBE_PROXY.read_text())
    assert spec["updateStrategy"] != original["spec"]["updateStrategy"]


def test_the_original_phase_restores_the_kube_proxy_daemonset(
    control_plane: ControlPlane, tmp_path: Path
) -> None:
    (given,) = yaml.safe_load_all(KUBE_PROXY.read_text())
    assert objects_of(kubeadm_phase("original")) == {("DaemonSet", "kube-proxy"): given}
    # The API server returns the DaemonSet with additional fields.
    returned = tmp_path / "kube-proxy.json"
    returned.write_text(control_plane.kubectl("create", "-o", "json", "-f", str(KUBE_PROXY)))
    (written,) = objects_of(kubeadm_phase("original", returned)).values()
    spec = json.loads(returned.read_text())["spec"]
    spec["template"]["metadata"].pop("creationTimestamp", None)
    assert written["spec"] == spec
    assert set(written["metadata"]) == {"name", "namespace", "labels"}


def test_a_daemon_set_that_was_taken_over_is_not_accepted_as_the_original(tmp_path: Path) -> None:
    ours = tmp_path / "kube-proxy.json"
    ours.write_text(json.dumps(taken_over()))
    with pytest.raises(BuildError, match="give the one from before"):
        kubeadm_phase("original", ours)
