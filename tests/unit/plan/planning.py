"""Functions that plan objects, and that read a plan."""

from dataclasses import replace

import msgspec

from userspace_proxy.cluster import Store
from userspace_proxy.plan import Planner
from userspace_proxy.policy import NodeFacts


def snapshot_of(*things):
    """Return a snapshot of Services and slices."""
    return store_of(*things).snapshot()


def store_of(*things):
    """Return a store that contains Services and slices."""
    store = Store()
    for thing in things:
        say(store, thing)
    return store


def say(store, thing):
    """Put a Service or a slice into the store."""
    if hasattr(thing, "endpoints"):
        store.put_slice(thing)
    else:
        store.put_service(thing)


def plan_of(*things, **facts):
    """Plan Services and slices on a node with these facts."""
    return Planner(NodeFacts(**facts)).plan(snapshot_of(*things))


def the_port(*things, **facts):
    """Plan objects, and return the only planned port."""
    (port,) = plan_of(*things, **facts).ports.values()
    return port


def frontends(plan):
    """Return the frontends of each port as text."""
    return {str(key): [str(f) for f in port.frontends] for key, port in plan.ports.items()}


def with_serving(port, **changes):
    """Return a port's plan with changed fields in its ``serving``."""
    return replace(port, serving=msgspec.structs.replace(port.serving, **changes))
