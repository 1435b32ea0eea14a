"""The table of this package's commands; help, completion and the man page are made from it.

To add a command, add a row here and a module that does the work, which is imported when it runs.
Commands of other packages: ``plugin_commands``.
"""

from __future__ import annotations

from .all_nodes import CLUSTER_FLAGS, NODE_FLAGS, asks_all_nodes
from .command import (
    DONE,
    FAILED,
    NEEDS_ATTENTION,
    Command,
    CommandFlag,
    Given,
)
from .kubeconfig import FLAGS as KUBECONFIG_FLAGS
from .service_argument import FLAGS as NAMESPACE_FLAGS

SUMMARY = "a Service proxy for Kubernetes that carries every connection through userspace"

_OUTPUT = CommandFlag("output", "format of the output", "text|json", short="o")
_SERVER = CommandFlag(
    "server",
    "the proxy to ask, by the address of its status page; without it the address that --config "
    "names, or 127.0.0.1:10249",
    "ADDRESS",
    short="s",
)
_SEARCH = CommandFlag(
    "search",
    "only what the search of the page finds: 'is:refused node:node-1'",
    "TEXT",
    short="q",
    completes="search",
)
_NAMES = (
    "A Service is NAMESPACE/NAME, or NAME or svc/NAME in the namespace of -n. Without -n, that is "
    "the context's as a plugin of kubectl and where a kubeconfig is read, and 'default' otherwise."
)
_ALL_NODES = (
    "With --kubeconfig, --context or --node, and as a plugin of kubectl, it asks the agents of all "
    "nodes, each through the API server's port-forward, and names those that don't answer."
)
_CONFIG = CommandFlag("config", "the file that the proxy runs with: its address is used", "PATH")
_SHELLS = ("bash", "zsh", "fish")
_COMPLETED = ("names", "services", "namespaces", "search")
_WATCH = CommandFlag("watch", "show it again every second until Ctrl-C", short="w")


def _run(given: Given) -> int:
    from .run import run

    return run(given)


def _status(given: Given) -> int:
    from .nodes import status_of_all
    from .status import status

    return (status_of_all if asks_all_nodes(given) else status)(given)


def _top(given: Given) -> int:
    from .nodes import top_of_all
    from .status import top

    return (top_of_all if asks_all_nodes(given) else top)(given)


def _nodes(given: Given) -> int:
    from .nodes import nodes

    return nodes(given)


def _observe(given: Given) -> int:
    from .observe import observe
    from .observe_nodes import observe_nodes

    return (observe_nodes if asks_all_nodes(given) else observe)(given)


def _dashboard(given: Given) -> int:
    from .dashboard import dashboard

    return dashboard(given)


def _explain(given: Given) -> int:
    from .explain import explain

    return explain(given)


def _check(given: Given) -> int:
    from .check import check

    return check(given)


def _report(given: Given) -> int:
    from .report import report

    return report(given)


def _forward(given: Given) -> int:
    from .forward import forward

    return forward(given)


def _completion(given: Given) -> int:
    from .completion import completion_script
    from .plugin_commands import all_commands

    print(completion_script(given.arguments[0], tuple(all_commands(COMMANDS).values())), end="")
    return DONE


def _complete(given: Given) -> int:
    from .complete import complete

    return complete(given, COMMANDS)


def _man(_given: Given) -> int:
    from .man import man_page
    from .plugin_commands import all_commands

    print(man_page(SUMMARY, tuple(all_commands(COMMANDS).values())), end="")
    return DONE


def _help(given: Given) -> int:
    from .help import command_help, program_help
    from .plugin_commands import all_commands, find_command

    if given.arguments:
        print(command_help(find_command(given.arguments[0], COMMANDS)))
    else:
        print(program_help(SUMMARY, tuple(all_commands(COMMANDS).values())))
    return DONE


_ROWS = (
    Command(
        "run",
        "serve the Services of this node; also without a command",
        _run,
        details=(
            (
                "kube-proxy's other flags are accepted; the log names those without effect once. "
                "Flags win over the file, the file wins over defaults."
            ),
        ),
        flags=(CommandFlag("version", "print the version, and exit"),),
        takes_settings=True,
        examples=(
            "--manifests=services.yaml --steering=none",
            "--kubeconfig=/etc/kubernetes/kubelet.conf --steering=iptables --v=2",
            "--config=/var/lib/kube-proxy/config.conf --hostname-override=node-1",
        ),
        is_daemon=True,
    ),
    Command(
        "status",
        "show one line per Service port, those with problems first, each with its cause",
        _status,
        arguments="[NAMESPACE[/NAME]]",
        completes="names",
        details=(
            (
                "It asks the running proxy. The answer is that of its status page as text, which "
                "'curl localhost:10249' prints as well."
            ),
            _ALL_NODES,
            _NAMES,
        ),
        flags=(
            CommandFlag(
                "output",
                "format of the output; wide adds addresses, endpoints and their counters",
                "text|wide|json",
                short="o",
            ),
            _SEARCH,
            *NAMESPACE_FLAGS,
            *CLUSTER_FLAGS,
            _WATCH,
            _SERVER,
            _CONFIG,
        ),
        examples=(
            "status",
            "status -n shop",
            "status shop/web -o wide",
            "status --search=is:problem",
            "status --watch",
            "status --context=prod -A",
        ),
        exits=(
            (DONE, "all served"),
            (FAILED, "no proxy answered, or there is no such Service"),
            (NEEDS_ATTENTION, "something needs attention"),
        ),
        runs_anywhere=True,
    ),
    Command(
        "top",
        "show the rates of the busiest Service ports, every second until Ctrl-C",
        _top,
        arguments="[NAMESPACE[/NAME]]",
        completes="names",
        details=(
            "Where its output isn't a terminal, it prints the rates of one second, and ends.",
            _ALL_NODES,
            _NAMES,
        ),
        flags=(
            CommandFlag("sort", "the column to sort by", "rate|in|out|open|saved|failed|name"),
            _SEARCH,
            *NAMESPACE_FLAGS,
            *CLUSTER_FLAGS,
            _SERVER,
            _CONFIG,
        ),
        examples=("top", "top -n shop --sort=out"),
        runs_anywhere=True,
    ),
    Command(
        "nodes",
        "show one line per node of a cluster, those with problems first",
        _nodes,
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
            _OUTPUT,
            _WATCH,
            *CLUSTER_FLAGS,
        ),
        examples=("nodes", "nodes --node=node-7,node-31", "nodes --context=prod --watch"),
        exits=(
            (DONE, "all nodes are as they should be"),
            (FAILED, "no agent was found, or the API server denies it"),
            (NEEDS_ATTENTION, "something needs attention"),
        ),
        runs_anywhere=True,
    ),
    Command(
        "observe",
        "show each connection as it ends, or is saved, held or refused, until Ctrl-C",
        _observe,
        arguments="[NAMESPACE[/NAME]]",
        completes="names",
        details=(
            (
                "A line has the time, the client (its pod, where an EndpointSlice names it), the "
                "Service port, the endpoint, dials that failed with their causes, bytes from the "
                "client and to it, the time to the first byte, and which side ended it how. "
                "Several of --failed, --saved and --slow show what any of them selects."
            ),
            (
                "Connections on the kernel path, and those that the kernel refuses for lack of an "
                "endpoint, can't be seen: it lists their Service ports first."
            ),
            _ALL_NODES,
            _NAMES,
        ),
        flags=(
            CommandFlag("failed", "only those whose clients didn't get what they asked for"),
            CommandFlag("saved", "only those whose first dial failed and that were served anyway"),
            CommandFlag("slow", "only those that waited so long for the first byte", "DURATION"),
            CommandFlag("from", "only those of a client", "IP"),
            *NAMESPACE_FLAGS,
            *CLUSTER_FLAGS,
            _OUTPUT,
            _SERVER,
            _CONFIG,
        ),
        examples=(
            "observe",
            "observe shop/web --failed --saved",
            "observe shop --slow=1s",
            "observe --from=10.244.0.8 -o json",
        ),
        exits=(
            (DONE, "ended by Ctrl-C"),
            (FAILED, "no proxy answered, or there is no such Service"),
        ),
        runs_anywhere=True,
    ),
    Command(
        "dashboard",
        "show all nodes of a cluster in a browser, until Ctrl-C",
        _dashboard,
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
    ),
    Command(
        "explain",
        "follow the path of connections to one Service, and state where they fail",
        _explain,
        arguments="NAMESPACE/NAME[:PORT]",
        completes="services",
        details=(
            (
                "It asks the running proxy. Without one, it reads --manifests or the cluster of "
                "--kubeconfig (of kubectl, with --context or as its plugin), and plans as a proxy "
                "would. It ends with one sentence and the next command."
            ),
            (
                "Of a cluster it asks the agents of all nodes, too: where the Service is served, "
                "which nodes have tried its endpoints, and in what a node isn't as planned. With "
                "one --node, it follows the path there."
            ),
            _NAMES,
        ),
        flags=(
            CommandFlag("from", "a client's address: is it admitted?", "IP"),
            CommandFlag(
                "pods", "with --kubeconfig: read the pods, too, to explain labels and readiness"
            ),
            CommandFlag("probe", "dial the Service and each endpoint now, and show the times"),
            *NAMESPACE_FLAGS,
            *KUBECONFIG_FLAGS,
            *NODE_FLAGS,
            _OUTPUT,
            _SERVER,
        ),
        takes_settings=True,
        examples=(
            "explain shop/web --probe",
            "explain web -n shop --from=10.244.0.8",
            "explain shop/web --manifests=services/",
            "explain shop/web --kubeconfig=$HOME/.kube/config --pods",
        ),
        exits=(
            (DONE, "clients are served"),
            (FAILED, "no proxy answered, or there is no such Service"),
            (NEEDS_ATTENTION, "something needs attention"),
        ),
        runs_anywhere=True,
    ),
    Command(
        "check",
        "report problems that run with these flags would have; changes nothing",
        _check,
        details=("It looks at settings, Services, the kernel, leftovers and firewalls.",),
        flags=(_OUTPUT,),
        takes_settings=True,
        examples=("check --kubeconfig=/etc/kubernetes/proxy.conf", "check --manifests=. -o json"),
        exits=((DONE, "no errors"), (FAILED, "run would fail, or clients would not be served")),
    ),
    Command(
        "report",
        "write an archive about all nodes of a cluster, for an incident or a bug report",
        _report,
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
    ),
    Command(
        "forward",
        "serve a cluster's Services on this machine, through the API server's port-forward",
        _forward,
        arguments="[NAMESPACE/NAME...]",
        completes="services",
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
            _NAMES,
        ),
        flags=(
            *NAMESPACE_FLAGS,
            *KUBECONFIG_FLAGS,
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
    ),
    Command(
        "cleanup",
        "remove all rules and routes of this program",
        _run,
        takes_settings=True,
        examples=("cleanup", "cleanup --service-proxy-name=canary"),
        is_daemon=True,
    ),
    Command(
        "completion",
        "print a script that completes commands and flags in a shell",
        _completion,
        arguments="|".join(_SHELLS),
        choices=_SHELLS,
        details=(
            "bash: source <(userspace-proxy completion bash)",
            "zsh: source <(userspace-proxy completion zsh)",
            "fish: userspace-proxy completion fish | source",
        ),
        examples=(
            "completion bash > /etc/bash_completion.d/userspace-proxy",
            'completion zsh > "${fpath[1]}/_userspace-proxy"',
            "completion fish > ~/.config/fish/completions/userspace-proxy.fish",
        ),
        runs_anywhere=True,
    ),
    Command(
        "complete",
        "print the names that a shell completes; its scripts call it",
        _complete,
        arguments="|".join(_COMPLETED),
        choices=_COMPLETED,
        details=(
            (
                "Of the proxy that the words of COMMAND name, or of the cluster for forward. The "
                "last word is the one to complete, and may be empty."
            ),
        ),
        takes_program=True,
        examples=('complete names -- status -n shop ""',),
        runs_anywhere=True,
    ),
    Command(
        "man",
        "print the manual page",
        _man,
        examples=("man | man -l -", "man > /usr/local/share/man/man8/userspace-proxy.8"),
        runs_anywhere=True,
    ),
)

_HELP = Command(
    "help", "show the help of a command", _help, arguments="[COMMAND]", runs_anywhere=True
)

COMMANDS = {row.name: row for row in (*_ROWS, _HELP)}
"""By name, in the order of the help."""
