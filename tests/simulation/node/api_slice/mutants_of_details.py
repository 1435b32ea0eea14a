"""Faults in parts of objects that most of them lack."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from ...mutant_table import Mutant

_model = partial(Mutant, package="model")

MUTANTS: Mapping[str, Mutant] = {
    "api-hints-of-nodes-are-those-of-zones": _model(
        "reading",
        "hints.names(hinted.for_nodes, hints.nodes)",
        "hints.names(hinted.for_zones, hints.nodes)",
    ),
    "api-address-of-another-family-is-used": _model(
        "reading", "if IPFamily.of(ip) is not family:", "if False:"
    ),
    "api-leading-zeros-are-no-address": _model(
        "reading", "partial(parse_ip, strict=False)", "partial(parse_ip)"
    ),
    "api-balancer-that-answers-itself-is-served": _model(
        "service_reading",
        'return ingress.ip_mode in (None, "", "VIP")',
        "return True",
    ),
    "api-wrong-range-is-ignored": _model(
        "source_ranges", "networks.update(dict.fromkeys(NO_CLIENT))", "pass"
    ),
    "api-cilium-weight-comes-first": _model(
        "slice_annotations",
        "    if weight is None:\n        weight =",
        "    if weight is None or ANNOTATION_CILIUM_WEIGHT in annotations:\n        weight =",
    ),
    "api-weight-of-none-is-the-usual-one": _model(
        "slice_annotations",
        "DEFAULT_WEIGHT if weight is None else weight,",
        "weight or DEFAULT_WEIGHT,",
    ),
    "api-taint-of-a-node-is-not-read": _model(
        "reading", "taint.key == TAINT_TO_BE_DELETED", "taint.key is TAINT_TO_BE_DELETED"
    ),
    "api-another-proxys-label-needs-a-value": _model(
        "service_reading",
        "proxy_name=labels.get(LABEL_PROXY_NAME)",
        "proxy_name=labels.get(LABEL_PROXY_NAME) or None",
    ),
}
