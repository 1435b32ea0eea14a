"""Declares the commands that this package adds to ``userspace-proxy`` by entry points."""

from __future__ import annotations

from userspace_proxy.cli.all_nodes import CLUSTER_FLAGS
from userspace_proxy.cli.command import (
    DONE,
    FAILED,
    NEEDS_ATTENTION,
    Command,
    CommandFlag,
    Imported,
)
from userspace_proxy.cli.command_table import NAMES, OUTPUT, WATCH
from userspace_proxy.cli.kubeconfig import FLAGS as KUBECONFIG_FLAGS
from userspace_proxy.cli.service_argument import FLAGS as NAMESPACE_FLAGS

NODES = Command(
    "nodes",
    "show one line per node of a cluster, those with problems first",
    Imported("userspace_proxy_kubectl.cli.nodes:nodes"),
    details=(
        (
            "It asks the agents of all nodes, each through the API server's port-forward, by "
            "the kubeconfig of kubectl or --kubeconfig. It needs the rights to list pods and "
            "to create pods/portforward in the agents' namespace (the chart's view.create)."
        ),
        (
            "Named are nodes without an agent or an answer, with two agents, with rules of "
            "kube-proxy, with a version or settings unlike the others', whose plan is behind "
            "the API server's, and whose clock is off."
        ),
    ),
    flags=(
        OUTPUT,
        WATCH,
        *CLUSTER_FLAGS,
    ),
    examples=("nodes", "nodes --node=node-7,node-31", "nodes --context=prod --watch"),
    exits=(
        (DONE, "all nodes are as they should be"),
        (FAILED, "no agent was found, or the API server denies it"),
        (NEEDS_ATTENTION, "something needs attention"),
    ),
    runs_anywhere=True,
)

DASHBOARD = Command(
    "dashboard",
    "show all nodes of a cluster in a browser, until Ctrl-C",
    Imported("userspace_proxy_kubectl.cli.dashboard:dashboard"),
    details=(
        (
            "It serves pages on loopback, for this machine's browser: causes, Services with "
            "nodes by endpoints, nodes, and a map of who calls whom. They are answered only to "
            "who has the address that it prints, which contains a secret."
        ),
        (
            "Without --port it takes 10299, or if that is taken any free port. An address of a "
            "page can be passed on: it works for anyone who has started the same command."
        ),
    ),
    flags=(
        CommandFlag("port", "the port on 127.0.0.1", "N"),
        CommandFlag("no-open", "print the address, and open no browser"),
        *CLUSTER_FLAGS,
    ),
    examples=("dashboard", "dashboard --no-open --port=8080", "dashboard --context=prod"),
    exits=(
        (DONE, "ended by Ctrl-C"),
        (FAILED, "no agent can be found or reached, or the port is taken"),
    ),
    runs_anywhere=True,
)

REPORT = Command(
    "report",
    "write an archive about all nodes of a cluster, for an incident or a bug report",
    Imported("userspace_proxy_kubectl.cli.report:report"),
    details=(
        (
            "It contains the answer of each agent, what follows from all of them, versions, "
            "settings, the last lines of agents' logs, and the objects of Services that aren't "
            "served. What looks like a secret is removed; README.txt in it lists what it "
            "contains, and what is missing."
        ),
        "The logs need the right to get pods/log.",
    ),
    flags=(
        CommandFlag(
            "file",
            "where to write it, instead of userspace-proxy-report-TIME.tar.gz",
            "PATH",
            short="f",
        ),
        CommandFlag("anonymous", "replace names and addresses by pseudonyms"),
        CommandFlag("overwrite", "replace the file if it exists"),
        *CLUSTER_FLAGS,
    ),
    examples=("report", "report --anonymous -f incident.tar.gz"),
    runs_anywhere=True,
)

FORWARD = Command(
    "forward",
    "serve a cluster's Services on this machine, through the API server's port-forward",
    Imported("userspace_proxy_kubectl.cli.forward:forward"),
    arguments="[NAMESPACE/NAME...]",
    completes="services",
    reads_cluster=True,
    details=(
        (
            "Each Service gets a loopback address of its own, and its names by DNS; without "
            "names of Services, all of a namespace do. Connections are balanced, and a pod "
            "that is gone costs none. It needs no root and changes nothing on the machine. TCP."
        ),
        (
            "Without --kubeconfig it reads that of kubectl. It needs the rights to list and "
            "watch Services and EndpointSlices, and to get and create pods/portforward."
        ),
        NAMES,
    ),
    flags=(
        *NAMESPACE_FLAGS,
        *KUBECONFIG_FLAGS,
        CommandFlag("address", "one address of loopback for all Services: 127.0.0.1", "IP"),
    ),
    takes_settings=True,
    examples=(
        "forward",
        "forward shop/web shop/db",
        "forward -n shop --dns-bind-address=127.0.0.1:5353",
        "forward -A --kubeconfig=admin.conf",
        "forward --context=prod",
    ),
    exits=(
        (DONE, "ended by a signal"),
        (FAILED, "the API server can't be reached, or denies it"),
    ),
)
