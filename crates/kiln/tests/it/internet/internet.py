"""A small internet of network namespaces; nothing of it leaves the machine.

To be started in a network and a mount namespace of its own, which become the host's:

    world ─ wan0 ─ host ─ lan0 ─ lan        the internet, and all that a leak would reach through it
                     └── cloud0 ─ cloud     the metadata service

Everybody listens on the ports FIRST to LAST (TCP and UDP) of all addresses, the host's loopback too, and
answers who they are. Everybody also watches all their interfaces, and prints what was aimed at these
ports or has MARK in it, once each:

    seen NODE PROTOCOL SOURCE DESTINATION PORT MARK

The host's resolver is on its loopback. "ready" is printed when every service was reached from the host.
"""

import ctypes
import os
import resource
import select
import signal
import socket
import struct
import subprocess
import sys

FIRST, LAST = 7000, 7099
CONTROL = LAST
MARK = b"kiln-escape-"
CLONE_NEWNET = 0x40000000
ETH_P_ALL = 3

# What a leak would reach: the host's default route leads there.
WORLD = """
93.10.20.30 10.99.0.1 172.16.5.5 192.168.5.5 100.64.5.5 169.254.5.5 198.18.5.5 192.0.0.9 192.0.2.55
192.31.196.5 192.52.193.5 192.88.99.1 192.175.48.5 198.51.100.5 203.0.113.5 240.0.0.5
2a00:aa:bb::30 fc00::5 2002:a14:1e02::1 64:ff9b::a14:1e02 64:ff9b:1::a14:1e02 2001:0:5102:304::1 2001:db8::5
fec0::5
""".split()
LAN = "192.168.77.2 10.20.30.2 45.6.7.8 fd00:77::2".split()
CLOUD = ["169.254.169.254"]
HOST = "127.0.0.1 ::1 81.2.3.4 192.168.77.1 10.20.30.1 2a00:11:22:33::4 fd00:77::1".split()

NAMES = {
    "world.test": "93.10.20.30",
    "loopback.rebind.test": "127.0.0.1",
    "gateway.rebind.test": "10.0.2.2",
    "lan.rebind.test": "10.20.30.2",
    "metadata.rebind.test": "169.254.169.254",
    "host.rebind.test": "81.2.3.4",
    "mapped.rebind.test": "::ffff:10.20.30.2",
    "host6.rebind.test": "2a00:11:22:33::4",
}

SET_UP = {
    "host": """
        link set lo up
        addr add 81.2.3.4/24 dev wan0
        addr add 2a00:11:22:33::4/64 dev wan0 nodad
        link set wan0 up
        addr add 192.168.77.1/24 dev lan0
        addr add 10.20.30.1/24 dev lan0
        addr add fd00:77::1/64 dev lan0 nodad
        link set lan0 up
        link set cloud0 up
        route add default via 81.2.3.1
        route add default via 2a00:11:22:33::1
        route add 169.254.169.254/32 dev cloud0 src 192.168.77.1
        route add 45.6.7.0/24 dev lan0 table 100
        rule add to 45.6.7.0/24 lookup 100
    """,
    "world": """
        link set lo up
        addr add 81.2.3.1/24 dev eth0
        addr add 2a00:11:22:33::1/64 dev eth0 nodad
        link set eth0 up
    """
    + "".join(f"addr add {each}/{128 if ':' in each else 32} dev lo\n" for each in WORLD),
    "lan": """
        link set lo up
        addr add 192.168.77.2/24 dev eth0
        addr add 10.20.30.2/24 dev eth0
        addr add 45.6.7.8/24 dev eth0
        addr add fd00:77::2/64 dev eth0 nodad
        link set eth0 up
        route add default via 192.168.77.1
    """,
    "cloud": """
        link set lo up
        addr add 169.254.169.254/16 dev eth0
        link set eth0 up
        route add 192.168.77.1/32 dev eth0
    """,
}


def ip(batch):
    lines = "".join(line.strip() + "\n" for line in batch.strip().splitlines())
    subprocess.run(["ip", "-batch", "-"], input=lines, text=True, check=True)


def say(line):
    os.write(1, (line + "\n").encode())


class Node:
    """What one of them serves and sees."""

    def __init__(self, name):
        self.name = name
        self.answers = {}
        self.poll = select.epoll()
        self.told = set()
        for port in range(FIRST, LAST + 1):
            tcp = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            tcp.bind(("::", port))
            tcp.listen(4096)
            self.add(tcp, self.accept)
            udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            udp.bind(("::", port))
            self.add(udp, self.reply)
        watch = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
        watch.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 20)
        self.add(watch, self.look)

    def add(self, one, answer):
        one.setblocking(False)
        self.answers[one.fileno()] = (one, answer)
        self.poll.register(one.fileno(), select.EPOLLIN)

    def serve(self):
        while True:
            for number, _ in self.poll.poll():
                one, answer = self.answers[number]
                try:
                    answer(one)
                except OSError:
                    pass  # whoever asked has gone, or there is no more

    def accept(self, listener):
        connection, _ = listener.accept()
        # Kept until its other end closes it: a limit on connections is tested here.
        self.add(connection, self.finish)
        connection.send(f"this is {self.name}\n".encode())

    def finish(self, connection):
        try:
            if connection.recv(4096):
                return
        except ConnectionError:
            pass
        del self.answers[connection.fileno()]
        connection.close()

    def reply(self, udp):
        _, sender = udp.recvfrom(2048)
        udp.sendto(f"this is {self.name}\n".encode(), sender)

    def look(self, watch):
        while True:
            packet, (_, kind, *_) = watch.recvfrom(2048)
            line = described(packet, kind)
            if line and line not in self.told:
                self.told.add(line)
                say(f"seen {self.name} {line}")


def described(packet, kind):
    """What is worth telling of a packet, if anything."""
    protocol, source, destination, rest = f"frame-{kind:x}", "-", "-", packet
    if kind == 0x0800 and len(packet) >= 20:
        protocol = packet[9]
        source = socket.inet_ntop(socket.AF_INET, packet[12:16])
        destination = socket.inet_ntop(socket.AF_INET, packet[16:20])
        rest = packet[(packet[0] & 15) * 4 :]
    elif kind == 0x86DD and len(packet) >= 40:
        protocol = packet[6]
        source = socket.inet_ntop(socket.AF_INET6, packet[8:24])
        destination = socket.inet_ntop(socket.AF_INET6, packet[24:40])
        rest = packet[40:]
    port = 0
    if protocol in (6, 17) and len(rest) >= 8:
        (port,) = struct.unpack_from("!H", rest, 2)
        if protocol == 6 and len(rest) >= 14 and rest[13] & 0x12 != 0x02:
            return None  # only a SYN begins something
    mark = "-"
    if (at := packet.find(MARK)) >= 0:
        mark = packet[at : at + 64].split()[0].decode(errors="replace")
    if not FIRST <= port < CONTROL and mark == "-":
        return None
    return f"{protocol} {source} {destination} {port} {mark}"


def question(packet):
    labels, at = [], 12
    while packet[at]:
        labels.append(packet[at + 1 : at + 1 + packet[at]].decode())
        at += 1 + packet[at]
    (kind,) = struct.unpack_from("!H", packet, at + 1)
    return ".".join(labels).lower(), kind, packet[12 : at + 5]


def answer_name(udp):
    packet, sender = udp.recvfrom(2048)
    wanted, kind, asked = question(packet)
    address = NAMES.get(wanted)
    family = socket.AF_INET6 if address and ":" in address else socket.AF_INET
    fits = address and kind == (28 if family == socket.AF_INET6 else 1)
    # A life of zero: the next answer may be another.
    record = b""
    if fits:
        data = socket.inet_pton(family, address)
        record = struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(data)) + data
    flags = 0x8180 if address else 0x8183
    udp.sendto(packet[:2] + struct.pack("!HHHHH", flags, 1, 1 if fits else 0, 0, 0) + asked + record, sender)


def node(name, go):
    """A child in a network namespace of its own. Gives its process, and a pipe that says when it is ready."""
    made = os.pipe()
    child = os.fork()
    if child:
        os.close(made[1])
        if not os.read(made[0], 1):
            sys.exit(f"{name} was not made")
        return child, made[0]
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        sys.exit(f"unshare: {os.strerror(ctypes.get_errno())}")
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # dies with its parent
    os.write(made[1], b".")
    os.read(go, 1)
    ip(SET_UP[name])
    here = Node(name)
    os.write(made[1], b".")
    here.serve()


def check(address):
    """The control: a service that can't be reached at all proves nothing."""
    with socket.create_connection((address, CONTROL), timeout=10) as connection:
        said = connection.recv(64).decode()
    for expected, addresses in (("host", HOST), ("world", WORLD), ("lan", LAN), ("cloud", CLOUD)):
        if address in addresses and said != f"this is {expected}\n":
            sys.exit(f"{address} is not {expected} but said {said!r}")


def main():
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    resolv = sys.argv[1]
    with open(resolv, "w") as file:
        file.write("nameserver 127.0.0.53\n")
    subprocess.run(["mount", "--bind", resolv, os.path.realpath("/etc/resolv.conf")], check=True)
    go = os.pipe()
    others = {each: node(each, go[0]) for each in ("world", "lan", "cloud")}
    for each, here in (("world", "wan0"), ("lan", "lan0"), ("cloud", "cloud0")):
        ip(f"link add {here} type veth peer name eth0 netns {others[each][0]}")
    os.write(go[1], b"...")
    ip(SET_UP["host"])
    host = Node("host")
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("127.0.0.53", 53))
    host.add(dns, answer_name)
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
        host.serve()
    for each, (_, ready) in others.items():
        if not os.read(ready, 1):
            sys.exit(f"{each} does not listen")
    for address in HOST + LAN + CLOUD + WORLD:
        check(address)
    say("ready")
    # Ends with whoever started it.
    sys.stdin.read()


main()
