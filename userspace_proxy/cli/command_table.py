"""Lists this package's commands; help, completion and the man page derive from the table.

To add a command, add a row here, and a module that is imported when the command runs. For commands
of other packages, see ``plugin_commands``.
"""

from __future__ import annotations

from .all_nodes import CLUSTER_FLAGS, NODE_FLAGS
from .command import DONE, FAILED, NEEDS_ATTENTION, Command, CommandFlag, Given, Imported
from .kubeconfig import FLAGS as KUBECONFIG_FLAGS
from .plugin_commands import all_commands, find_command
from .service_argument import FLAGS as NAMESPACE_FLAGS

SUMMARY = "a Service proxy for Kubernetes, in place of kube-proxy or beside it"

OUTPUT = CommandFlag("output", "format of the output", "text|json", short="o")
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
NAMES = (
    "A Service is NAMESPACE/NAME, or NAME or svc/NAME in the namespace of -n. Without -n, that is "
    "the context's as a plugin of kubectl and where a kubeconfig is read, and 'default' otherwise."
)
_ALL_NODES = (
    "With --kubeconfig, --context or --node, and as a plugin of kubectl, it asks the agents of all "
    "nodes, each through the API server's port-forward, and names those that don't answer. That is "
    "a part of kubectl-userspace-proxy."
)
_CONFIG = CommandFlag("config", "the file that the proxy runs with: its address is used", "PATH")
_SHELLS = ("bash", "zsh", "fish")
_COMPLETED = ("names", "services", "namespaces", "search")
WATCH = CommandFlag("watch", "show it again every second until Ctrl-C", short="w")


_RUN = Imported("userspace_proxy.cli.run:run")


def _completion(given: Given) -> int:
    from .completion import completion_script

    print(completion_script(given.arguments[0], tuple(all_commands(COMMANDS).values())), end="")
    return DONE


def _complete(given: Given) -> int:
    from .complete import complete

    return complete(given, COMMANDS)


def _man(_given: Given) -> int:
    from .man import man_page

    print(man_page(SUMMARY, tuple(all_commands(COMMANDS).values())), end="")
    return DONE


def _help(given: Given) -> int:
    from .help import command_help, program_help

    if given.arguments:
        print(command_help(find_command(given.arguments[0], COMMANDS)))
    else:
        print(program_help(SUMMARY, tuple(all_commands(COMMANDS).values())))
    return DONE


_ROWS = (
    Command(
        "run",
        "serve the Services of this node; also without a command",
        _RUN,
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
        Imported("userspace_proxy.cli.status:status"),
        arguments="[NAMESPACE[/NAME]]",
        completes="names",
        details=(
            (
                "It asks the running proxy. The answer is that of its status page as text, which "
                "'curl localhost:10249' prints as well."
            ),
            _ALL_NODES,
            NAMES,
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
            WATCH,
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
        may_read_all=True,
    ),
    Command(
        "top",
        "show the rates of the busiest Service ports, every second until Ctrl-C",
        Imported("userspace_proxy.cli.status:top"),
        arguments="[NAMESPACE[/NAME]]",
        completes="names",
        details=(
            "Where its output isn't a terminal, it prints the rates of one second, and ends.",
            _ALL_NODES,
            NAMES,
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
        may_read_all=True,
    ),
    Command(
        "observe",
        "show each connection as it ends, or is saved, held or refused, until Ctrl-C",
        Imported("userspace_proxy.cli.observe:observe"),
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
            NAMES,
        ),
        flags=(
            CommandFlag("failed", "only those whose clients didn't get what they asked for"),
            CommandFlag("saved", "only those whose first dial failed and that were served anyway"),
            CommandFlag("slow", "only those that waited so long for the first byte", "DURATION"),
            CommandFlag("from", "only those of a client", "IP"),
            *NAMESPACE_FLAGS,
            *CLUSTER_FLAGS,
            OUTPUT,
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
        may_read_all=True,
    ),
    Command(
        "explain",
        "follow the path of connections to one Service, and state where they fail",
        Imported("userspace_proxy.cli.explain:explain"),
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
            NAMES,
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
            OUTPUT,
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
        Imported("userspace_proxy.cli.check:check"),
        details=("It looks at settings, Services, the kernel, leftovers and firewalls.",),
        flags=(OUTPUT,),
        takes_settings=True,
        examples=("check --kubeconfig=/etc/kubernetes/proxy.conf", "check --manifests=. -o json"),
        exits=((DONE, "no errors"), (FAILED, "run would fail, or clients would not be served")),
    ),
    Command(
        "cleanup",
        "remove all rules and routes of this program",
        _RUN,
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
"""The commands by name, in the order of the help."""
