"""All targets by name, with the bound on their CPU time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from ..cost import check_cost
from . import (
    agents,
    api,
    channel,
    dns,
    files,
    http,
    netfilter,
    proxy_protocol,
    rtnetlink,
    state,
    texts,
    toxiproxy,
)

_CHECKS: Mapping[str, Callable[[bytes], None]] = {
    "yaml": files.check_yaml,
    "manifest": files.check_manifest,
    "config": files.check_config,
    "kubeconfig": files.check_kubeconfig,
    "no-proxy": files.check_no_proxy,
    "objects": api.check_objects,
    "annotations": texts.check_annotations,
    "list": api.check_list,
    "watch": api.check_watch,
    "drawn-objects": api.check_drawn_objects,
    "rtnetlink": rtnetlink.check_rtnetlink,
    "conntrack": netfilter.check_conntrack,
    "nf_tables": netfilter.check_nf_tables,
    "legacy-save": netfilter.check_legacy_save,
    "channel": channel.check_channel,
    "worker-channel": channel.check_worker_channel,
    "last-state": state.check_last_state,
    "http": http.check_http,
    "toxiproxy": toxiproxy.check_toxiproxy,
    "dns-query": dns.check_dns_query,
    "dns-answer": dns.check_dns_answer,
    "proxy-header": proxy_protocol.check_proxy_header,
    "agent-http": agents.check_agent_http,
    "agent-lines": agents.check_agent_lines,
}

TARGETS: Mapping[str, Callable[[bytes], None]] = {
    name: functools.partial(check_cost, check) for name, check in _CHECKS.items()
}
"""Functions that raise if the parser breaks its contract or exceeds its CPU time."""
