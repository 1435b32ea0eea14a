"""Words packets that are lost behind the handshake, by what is noted of a connection.

    client ◀──NOT_TO_CLIENT── proxy ──NOT_TO_ENDPOINT──▶ endpoint
                              proxy ◀──FROM_ENDPOINT──── endpoint

Rule 1: a client that doesn't get its answers is no fault of an endpoint: no endpoint fails for it.
"""

from __future__ import annotations

from ..model import Cause, CauseCode, Failure, SocketAddress, ip_of

_PAST = {
    " acknowledges ": " acknowledged ",
    " clients send": " clients sent",
    " arrive ": " arrived ",
    " does not ": " did not ",
    " is sent": " was sent",
}


def loses(
    endpoint: SocketAddress, failure: Failure, client: str = "", *, has_sent: bool = False
) -> Cause:
    """Return the cause of connections that clients leave as packets are lost.

    Args:
        failure: One of ``model.failures.LOSSES``.
        client: The last one's IP address; it is named where its own packets are lost.
        has_sent: The endpoint had sent bytes on these connections.
    """
    if failure is Failure.NOT_TO_CLIENT:
        about, sentence = (
            client,
            f"client {client} does not acknowledge the answers that it is sent",
        )
    else:
        about = str(endpoint)
        sentence = f"{endpoint} acknowledges handshakes, but not what clients send"
        if failure is Failure.FROM_ENDPOINT:
            sentence = f"answers of {endpoint} arrive with a gap"
        elif has_sent:
            sentence = f"{endpoint} does not acknowledge all that clients send"
    hint = (
        f"Large packets may exceed the MTU on the way to {ip_of(about) or about}: "
        "compare the MTU in `ip link` on both ends and between (tunnels, VPNs), let ICMP type 3 "
        'code 4 and ICMPv6 "packet too big" pass, or clamp the MSS to the path\'s MTU; a firewall '
        "that drops packets with data, a link that loses many packets, and a host that has just "
        "gone look the same"
    )
    return Cause(CauseCode.PACKETS_LOST, sentence, about, hint)


def lost_before(sentence: str) -> str:
    """Return the sentence of such a cause in the past tense."""
    for present, past in _PAST.items():
        sentence = sentence.replace(present, past)
    return sentence
