"""The commands that this package adds to ``userspace-proxy``, each with its entry point."""

from __future__ import annotations

from userspace_proxy.cli.command import DONE, FAILED, Command, CommandFlag, Given


def _demo(given: Given) -> int:
    from .demo import demo

    return demo(given)


def _sandbox(given: Given) -> int:
    from .sandbox import sandbox

    return sandbox(given)


DEMO = Command(
    "demo",
    "start a sandbox with backends, sample Services, the proxy and its status page",
    _demo,
    arguments="[COMMAND [POD]]",
    choices=("break", "silence", "slow", "heal"),
    details=(
        (
            "It needs no cluster, and no root where user namespaces are allowed. It prints "
            "what to try, and ends with Ctrl-C."
        ),
        (
            "With a command, the running demo stops, silences or slows a pod, or heals one "
            "pod or all. At its own terminal it takes the same commands, status and explain."
        ),
    ),
    flags=(CommandFlag("port", "port of the status page (10249 if it is free, else any)", "N"),),
    examples=("demo", "demo --port=8080", "demo break web-2", "demo heal"),
)

SANDBOX = Command(
    "sandbox",
    "run a command where the Services of manifests answer at their ClusterIPs and names",
    _sandbox,
    details=(
        (
            "It needs no cluster, and no root where user namespaces are allowed. Each ready "
            "endpoint of the manifests is a pod whose TCP ports answer HTTP requests with its "
            "name and whose UDP ports return what arrives."
        ),
        (
            "The command runs in a network of its own and reaches nothing else. "
            "/etc/resolv.conf leads to a DNS server for the Services. "
            "status and explain work in it; a Service that isn't served has a line before it runs."
        ),
    ),
    flags=(
        CommandFlag("manifests", "file or folder with Services and EndpointSlices", "PATH"),
        CommandFlag(
            "namespace",
            "namespace in which short names are looked up first (default)",
            "NAME",
            short="n",
        ),
        CommandFlag(
            "own",
            "Services whose endpoints the command serves itself, at their ports",
            "NAMESPACE/NAME,...",
        ),
    ),
    examples=(
        "sandbox --manifests=services.yaml -- curl http://web.shop/",
        "sandbox --manifests=deploy/ -n shop -- pytest tests",
        "sandbox --manifests=deploy/ --own=shop/web -- sh -c './web & pytest tests'",
    ),
    exits=((DONE, "the command's own exit status"), (FAILED, "it could not be started")),
    takes_program=True,
)
