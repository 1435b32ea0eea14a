"""Passive FTP, and SIP with RTP: all connections of a client must reach one pod."""

import ftplib
import io
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.node.range_servers import ProgramPod, RangePod, service
from tests.node.testbed import Testbed
from userspace_proxy.kernel.offers import FOR_KERNEL_PATH

pytestmark = [pytest.mark.netns, pytest.mark.needs(*FOR_KERNEL_PATH)]

IP = "10.96.0.21"
SESSIONS, CALLS, CLIENTS = 100, 100, 20
PASSIVE, RTP = (30000, 30100), (20000, 20400)
SHARED = {"affinity-scope": "service"}
AFFINITY = {"sessionAffinity": "ClientIP"}


class PodFtp(ftplib.FTP):
    """An FTP client whose sockets belong to a pod."""

    def __init__(self, client):
        super().__init__()
        self._client = client

    def connect_from_pod(self, address):
        self.af, self.host = socket.AF_INET, address[0]
        self.sock = self._client.tcp()
        self.sock.connect(address)
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()

    def ntransfercmd(self, cmd, rest=None):
        _, port = ftplib.parse229(self.sendcmd("EPSV"), (self.host, 0))
        data = self._client.tcp()
        data.connect((self.host, port))
        self.sendcmd(cmd)
        return data, None


def ftp_session(client, number):
    """Store and read a file, and read the server's name; return both servers' names."""
    content = bytes([number % 256]) * 50_000
    ftp = PodFtp(client)
    ftp.connect_from_pod((IP, 21))
    ftp.login()
    ftp.storbinary("STOR file", io.BytesIO(content))
    read, name = bytearray(), bytearray()
    ftp.retrbinary("RETR file", read.extend)
    ftp.retrbinary("RETR name", name.extend)
    welcome = ftp.welcome.removeprefix("220 ")
    ftp.quit()
    assert bytes(read) == content
    return welcome, name.decode()


@pytest.mark.parametrize("path", ["userspace", "kernel"])
def test_passive_ftp_reaches_one_server_for_control_and_data(tmp_path, path):
    clients = ["pod", "node-1", "bare-pod", "bridge-pod"]
    flags = f"--path={path}", "--workers=2"
    with Testbed(tmp_path, "nftables", *flags, clients=clients) as testbed:
        pods = [
            ProgramPod(testbed, name, "ftp_server.py", 21, *PASSIVE)
            for name in ("one", "two", "three")
        ]
        ranges = {"port-ranges": "passive={}-{}".format(*PASSIVE), **SHARED}
        ports = [("ftp", "TCP", 21, 21), ("passive", "TCP", PASSIVE[0], PASSIVE[0])]
        testbed.agent.manifests.write_objects(
            service("ftp", [IP], ports, ranges, pods=pods, **AFFINITY)
        )
        testbed.agent.start_until_ready()
        with ThreadPoolExecutor(8) as pool:
            of = [testbed[clients[n % len(clients)]] for n in range(SESSIONS)]
            met = list(pool.map(ftp_session, of, range(SESSIONS)))
    assert all(welcome == name for welcome, name in met)


def call(client, number):
    """Signal a call and send media to one of its ports; return the pods that answered."""
    answers = []
    for port in (5060, RTP[0] + number * 4, RTP[0] + number * 4 + 1):
        sock = client.udp((IP, port))
        sock.send(b"hello")
        name, _, answered = sock.recv(100).decode().partition(" ")
        assert answered == str(port)
        answers.append(name)
    return answers


@pytest.mark.parametrize("path", ["userspace", "kernel"])
def test_signalling_and_media_of_a_call_reach_one_pod(tmp_path, path):
    flags = f"--path={path}", "--workers=2"
    clients = ["pod", "node-1", "bare-pod", "bridge-pod"]
    with Testbed(tmp_path, "nftables", *flags, clients=clients) as testbed:
        media = range(RTP[0], RTP[1] + 1)
        pods = [RangePod(testbed, name, [5060, *media]) for name in ("one", "two", "three")]
        ranges = {"port-ranges": "rtp={}-{}".format(*RTP), **SHARED}
        ports = [("sip", "UDP", 5060, 5060), ("rtp", "UDP", RTP[0], RTP[0])]
        testbed.agent.manifests.write_objects(
            service("sip", [IP], ports, ranges, pods=pods, **AFFINITY)
        )
        testbed.agent.start_until_ready()
        of = [testbed[clients[n % len(clients)]] for n in range(CALLS)]
        met = list(map(call, of, range(CALLS)))
    assert all(len(set(answers)) == 1 for answers in met)
