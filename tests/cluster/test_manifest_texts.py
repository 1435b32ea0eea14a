"""This proxy reads from a manifest exactly the objects that kubectl creates from it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from userspace_proxy.model.document import decode
from userspace_proxy.sources.manifests.objects import ManifestReader

from .control_plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.long]

TILL = """apiVersion: v1
kind: Service
metadata: {name: till}
spec: {ports: [{port: 7070}]}
"""
DESK = TILL.replace("till", "desk")
SLICE = """apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: till-x, labels: {kubernetes.io/service-name: till}}
addressType: IPv4
endpoints: [{addresses: [10.244.1.7]}]
ports: [{port: 7070}]
"""
MAP = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: conf}\ndata: "
SHIPPER = """apiVersion: apps/v1
kind: DaemonSet
metadata: {name: shipper}
spec:
  selector: {matchLabels: {app: shipper}}
  template:
    metadata: {labels: {app: shipper}}
    spec:
      containers: [{name: shipper, image: example/shipper}]
      volumes: [{name: conf, configMap: {name: shipper, defaultMode: 0640}}]
"""


def listed(*texts: str, kind: str = "List") -> str:
    items = "".join("- " + text.replace("\n", "\n  ").rstrip() + "\n" for text in texts)
    return f"apiVersion: v1\nkind: {kind}\nitems:\n{items}"


def with_port(written: str) -> str:
    return TILL.replace("{port: 7070}", written)


JSON = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "till"},
        "spec": {"ports": [{"port": 80}]},
    }
)
# fmt: off
TEXTS: dict[str, str | bytes] = {
    "octal-in-another-kind": f"{TILL}---\n{SHIPPER}",
    "octal-in-a-list": listed(TILL, SHIPPER),
    "utf-16": f"{TILL}---\n{SLICE}".encode("utf-16"),
    "utf-16-big": b"\xfe\xff" + TILL.encode("utf-16-be"),
    "utf-16-without-mark": TILL.encode("utf-16-le"),
    "utf-8-with-mark": TILL.encode("utf-8-sig"),
    "latin-1-comment": f"{TILL}# gar\xe7on\n---\n{DESK}".encode("latin-1"),
    "latin-1-in-another-kind": f"{MAP}{{a: gar\xe7on}}\n---\n{DESK}".encode("latin-1"),
    "cut-character": f"{TILL}# €".encode()[:-1],
    "crlf": f"{TILL}---\n{DESK}".replace("\n", "\r\n"),
    "carriage-returns-alone": TILL.replace("\n", "\r"),
    "end-of-document": f"{TILL}---\n",
    "two-ends": f"{TILL}---\n---\n# only this\n---\n{DESK}",
    "null-document": f"{TILL}---\nnull\n---\n{DESK}",
    "after-the-end": f"{TILL}...\n{DESK}",
    "separator-with-comment": f"{TILL}--- # next\n{DESK}",
    "separator-in-a-text": f"{MAP}\n  x: |\n    a\n    ---\n    b\n---\n{TILL}",
    "no-separator": f"{TILL}---x\n{DESK}",
    "tab-before-a-value": TILL.replace("kind: Service", "kind:\tService"),
    "tab-in-a-flow": with_port("{port:\t80}"),
    "null-character": f"{TILL}# \0\n",
    "escape-character": f"{TILL}# \x1b[31m\n",
    "anchor": "x: &p {port: 80}\n" + with_port("{<<: *p, name: q}"),
    "anchor-inside": with_port("&p {port: 80, name: a}, {<<: *p, port: 81, name: b}"),
    "anchor-of-another-document": f"{TILL.replace('till', '&n till')}---\n{DESK}",
    "numeric-key-in-another-kind": f"{MAP}{{5: x}}\n---\n{TILL}",
    "key-twice-in-another-kind": f"{MAP}{{a: x, a: y}}\n---\n{TILL}",
    "label-twice": TILL.replace("{name: till", "{name: till, labels: {a: x, a: z}"),
    "labels-twice": TILL.replace("{name: till", "{name: till, labels: {a: x}, labels: {a: z}"),
    "annotation-twice": TILL.replace("{name: till", "{name: till, annotations: {a: x, a: z}"),
    "label-twice-in-json": JSON.replace('"till"', '"till", "labels": {"a": "x", "a": "z"}'),
    "number-as-label": TILL.replace("{name: till", "{name: till, labels: {5: x, on: x}"),
    "null-as-label": TILL.replace("{name: till", "{name: till, labels: {null: x}"),
    "tag-in-another-kind": f"{MAP}{{a: !Sub x, b: !!binary aGk=}}\n---\n{TILL}",
    "unknown-kind": f"apiVersion: example.com/v1\nkind: Till\nmetadata: {{name: a}}\n---\n{TILL}",
    "service-list": listed(
        TILL.replace("apiVersion: v1\nkind: Service\n", ""), kind="ServiceList"
    ),
    "empty-list": f"apiVersion: v1\nkind: List\nitems: []\n---\n{TILL}",
    "tag-of-a-number": with_port('{port: !!int "80"}'),
    "tag-of-a-boolean": TILL.replace(
        "spec: {", 'spec: {publishNotReadyAddresses: !!bool "true", '
    ),
    "word-for-true": TILL.replace("spec: {", "spec: {publishNotReadyAddresses: on, "),
    "letter-for-true": TILL.replace("spec: {", "spec: {publishNotReadyAddresses: y, "),
    "name-that-is-a-letter": TILL.replace("till", "y"),
    "name-that-is-a-date": TILL.replace("till", "2001-01-01"),
    "name-that-is-a-number": TILL.replace("till", "5"),
    "name-of-64-characters": TILL.replace("till", "a" * 64),
    "hexadecimal": with_port("{port: 0x50}"),
    "octal-of-yaml-1.2": with_port("{port: 0o120}"),
    "underscore": with_port("{port: 8_0}"),
    "exponent": with_port("{port: 8e1}"),
    "sexagesimal": with_port("{port: 1:20}"),
    "quoted-port": with_port('{port: "80"}'),
    "no-port": with_port("{port: null}"),
    "lower-case-protocol": with_port("{port: 80, protocol: tcp}"),
    "no-protocol": with_port("{port: 80, protocol: null}"),
    "port-twice": with_port("{name: a, port: 80}, {name: b, port: 80}"),
    "port-of-two-protocols": with_port(
        "{name: a, port: 80}, {name: b, port: 80, protocol: UDP}"
    ),
    "address-as-external-name":
        "apiVersion: v1\nkind: Service\nmetadata: {name: till}\n"
        "spec: {type: ExternalName, externalName: 192.0.2.7}\n",
    "json": JSON,
    "json-with-mark": f"\ufeff{JSON}",
    "json-with-comment": JSON.replace(", ", ", # x\n"),
    "json-with-trailing-comma": f"{JSON[:-1]},}}",
    "json-then-another": f"{JSON}\n{JSON.replace('till', 'desk')}",
    "json-then-yaml": f"{JSON}\n---\n{DESK}",
    "json-then-a-word": f"{JSON} x",
    "json-with-tabs": json.dumps(json.loads(JSON), indent="\t"),
}
# fmt: on


def created(control_plane: ControlPlane, path: Path) -> list[str]:
    """Return the Services and slices that kubectl would create, even if it fails."""
    command = (
        *(str(control_plane.kubectl_program), "create", "--dry-run=server", "--output=name"),
        *(f"--kubeconfig={control_plane.kubeconfig}", f"--filename={path}"),
        f"--cache-dir={path.parent}",
    )
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    names = (line.partition("/") for line in done.stdout.split())
    kinds = {"service": "Service", "endpointslice.discovery.k8s.io": "EndpointSlice"}
    return sorted(f"{kinds[kind]} {name}" for kind, _, name in names if kind in kinds)


@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in TEXTS.items()])
def test_a_manifest_yields_the_objects_that_kubectl_creates(
    control_plane: ControlPlane, tmp_path: Path, text: str | bytes
) -> None:
    data = text if isinstance(text, bytes) else text.encode()
    path = tmp_path / "web.yaml"
    path.write_bytes(data)
    read = ManifestReader("web.yaml").read(decode(data))
    here = sorted(f"{found.kind} {found.key.rpartition('/')[2]}" for found in read.objects)
    assert here == created(control_plane, path), read.problems
