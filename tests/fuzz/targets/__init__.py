"""All targets by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from . import api, channel, files, http, netfilter, proxy_protocol, rtnetlink, state, texts

TARGETS: Mapping[str, Callable[[bytes], None]] = {
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
    "last-state": state.check_last_state,
    "http": http.check_http,
    "proxy-header": proxy_protocol.check_proxy_header,
}
