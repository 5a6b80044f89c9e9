#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""The load balancer example: a client downloads 100 MB through a front host and uploads at the same time, while its
connection moves five times between two backends. Nothing is lost, doubled or reset.

balancer_test.py DOWNLOADS [CASE...]        in TAP
"""
import hashlib
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading

PROGRAM, CASES = sys.argv[1], sys.argv[2:]
PERIOD = 65521
PATTERN = bytes((i * 2654435761 & 0xffffffff) >> 13 & 255 for i in range(PERIOD))
DOWNLOAD, UPLOAD, MOVES = 100_000_000, 60_000_000, 5
# Slower than the client reads, so that its window is open and data in flight when the connection stands still.
RATE = 30_000_000
ADDRESSES = {"v4": ("192.0.2.80", "ip"), "v6": ("2001:db8:80::80", "ip6")}


def run(*command, **more):
    return subprocess.run(command, check=True, **more)


def inside(*command, **more):
    """Runs the command in the namespace that it names first."""
    return run("ip", "netns", "exec", *command, **more)


def make_hosts():
    for host in ("client", "front", "one", "two"):
        run("ip", "netns", "add", host)
        inside(host, "ip", "link", "set", "lo", "up")
    for number, host in enumerate(("client", "one", "two"), 1):
        inside("front", "ip", "link", "add", host, "type", "veth", "peer", "name", "wire", "netns", host)
        for where, device, last in (("front", host, 1), (host, "wire", 2)):
            inside(where, "ip", "addr", "add", f"10.0.{number}.{last}/24", "dev", device)
            inside(where, "ip", "addr", "add", f"fd00:{number}::{last}/64", "dev", device, "nodad")
            inside(where, "ip", "link", "set", device, "up")
        inside(host, "ip", "route", "add", "default", "via", f"10.0.{number}.1")
        inside(host, "ip", "-6", "route", "add", "default", "via", f"fd00:{number}::1")
    for host in ("one", "two"):
        for address, _ in ADDRESSES.values():
            inside(host, "ip", "addr", "add", address, "dev", "lo")
    inside("front", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")


def point_to(number):
    for family, (address, _) in ADDRESSES.items():
        gateway = f"10.0.{number}.2" if family == "v4" else f"fd00:{number}::2"
        inside("front", "ip", "-" + family[1], "route", "replace", address, "via", gateway)


def policy_script(folder, family, number):
    """How this balancer silences a connection and turns it to a backend: its choice, not the library's."""
    address, word = ADDRESSES[family]
    gateway = f"10.0.{number}.2" if family == "v4" else f"fd00:{number}::2"
    path = os.path.join(folder, f"policy-{family}-{number}")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"""#!/bin/sh
set -e
case $1 in
  silence) ip netns exec front nft 'table inet move {{ chain forward {{ type filter hook forward priority 0;
             {word} daddr {address} drop; }}; }}' ;;
  switch) ip netns exec front ip -{family[1]} route replace {address} via {gateway} ;;
  speak) ip netns exec front nft delete table inet move ;;
esac
""")
    os.chmod(path, 0o755)
    return path


class Client:
    """Downloads and uploads, and calls `move` five times on the way."""

    def __init__(self, family, move):
        self.move = move
        self.error = None
        self.turns = threading.Semaphore(0)
        # A thread's own namespace is that of the sockets it makes; the process stays where it is.
        made = []
        thread = threading.Thread(target=lambda: made.append(self.connect(family)))
        thread.start()
        thread.join()
        self.socket = made[0]

    @staticmethod
    def connect(family):
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        with open("/run/netns/client", "rb") as namespace:
            if libc.setns(namespace.fileno(), 0x40000000) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        made = socket.socket(socket.AF_INET if family == "v4" else socket.AF_INET6, socket.SOCK_STREAM)
        made.settimeout(60)
        # Else the window may grow to where the server is done, and its connection closed, before the last move.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        made.connect((ADDRESSES[family][0], 80))
        return made

    def upload(self):
        try:
            self.socket.sendall(struct.pack("<Q", DOWNLOAD))
            for start in range(0, UPLOAD, UPLOAD // (MOVES + 1)):
                self.turns.acquire()  # so that some is on its way at every move
                self.socket.sendall(pattern(start, UPLOAD // (MOVES + 1)))
            self.socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            self.error = error

    def receive(self, size):
        got = bytearray()
        while len(got) < size:
            piece = self.socket.recv(min(size - len(got), 1 << 20))
            if not piece:
                raise AssertionError(f"the end came {size - len(got)} bytes too early")
            got += piece
        return bytes(got)

    def talk(self):
        uploader = threading.Thread(target=self.upload)
        uploader.start()
        digest = hashlib.sha256()
        for step in range(MOVES + 1):
            size = DOWNLOAD // (MOVES + 1) if step < MOVES else DOWNLOAD - DOWNLOAD // (MOVES + 1) * MOVES
            digest.update(self.receive(size // 4))
            self.turns.release()
            mover = threading.Thread(target=self.move, args=(step,))
            if step < MOVES:
                mover.start()
            # Read on: data is in flight in both directions when the connection stands still.
            digest.update(self.receive(size - size // 4))
            if step < MOVES:
                mover.join()
        assert digest.digest() == expected_download(), "the download is damaged"
        uploader.join()
        assert self.error is None, self.error
        assert struct.unpack("<Q", self.receive(8))[0] == expected_sum(), "the upload is damaged"
        assert self.socket.recv(1) == b"", "more bytes than were asked for"


def pattern(start, size):
    first = start % PERIOD
    return (PATTERN[first:] + PATTERN * (size // PERIOD + 1))[:size]


def expected_download():
    return hashlib.sha256(pattern(0, DOWNLOAD)).digest()


def expected_sum():
    """The server's sum: times 31, plus the next byte; block by block."""
    def over(block):
        total = 0
        for byte in block:
            total = (total * 31 + byte) % 2**64
        return total
    whole, total = over(PATTERN), 0
    for _ in range(UPLOAD // PERIOD):
        total = (total * pow(31, PERIOD, 2**64) + whole) % 2**64
    rest = PATTERN[:UPLOAD % PERIOD]
    return (total * pow(31, len(rest), 2**64) + over(rest)) % 2**64


def one_client(family):
    point_to(2)
    moves = []
    with tempfile.TemporaryDirectory() as folder:
        servers, controls = [], []
        try:
            for host in ("one", "two"):
                controls.append(os.path.join(folder, host))
                servers.append(subprocess.Popen(["ip", "netns", "exec", host, PROGRAM, "serve", controls[-1],
                                                 ADDRESSES[family][0], "80", str(RATE)], stdout=subprocess.PIPE))
                assert servers[-1].stdout.readline() == b"ready\n"
            scripts = [policy_script(folder, family, number) for number in (2, 3)]

            def move(step):
                here, there = step % 2, (step + 1) % 2
                moves.append(subprocess.run([PROGRAM, "move", controls[here], controls[there], scripts[there]],
                                            stdout=subprocess.PIPE, text=True))

            Client(family, move).talk()
            assert len(moves) == MOVES and all(done.returncode == 0 for done in moves), moves
            on_the_way = [[int(word) for word in re.findall(r"\d+", done.stdout)] for done in moves]
            print("#", on_the_way)
            assert any(unacked > unsent for _, unacked, unsent in on_the_way), "nothing was in flight"
        finally:
            for server in servers:
                server.kill()
                server.wait()


LOSS = "table inet loss { chain forward { type filter hook forward priority -10; numgen random mod 1000 < 5 drop; }; }"


def with_loss(family):
    inside("front", "nft", LOSS)
    try:
        one_client(family)
    finally:
        inside("front", "nft", "delete table inet loss")


def with_netem(family):
    devices = ("client", "one", "two")
    command = ["ip", "netns", "exec", "front", "tc", "qdisc", "add", "dev"]
    netem = ["root", "netem", "delay", "2ms", "1ms", "reorder", "5%", "loss", "0.2%"]
    try:
        for device in devices:
            if subprocess.run(command + [device] + netem, stderr=subprocess.DEVNULL).returncode != 0:
                return "this kernel has no netem"
        one_client(family)
        return None
    finally:
        for device in devices:
            subprocess.run(["ip", "netns", "exec", "front", "tc", "qdisc", "del", "dev", device, "root"],
                           stderr=subprocess.DEVNULL)


TESTS = [("IPv4", one_client, "v4"), ("IPv6", one_client, "v6"), ("IPv4 with lost packets", with_loss, "v4"),
         ("IPv6 with lost packets", with_loss, "v6"), ("IPv4 with delay and reordering", with_netem, "v4"),
         ("IPv6 with delay and reordering", with_netem, "v6")]


def main():
    if "SOCCR_BALANCER_INSIDE" not in os.environ:
        # Namespaces, mounts and processes of the test go away with it.
        os.environ["SOCCR_BALANCER_INSIDE"] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
                              "--propagation", "private", sys.executable, *sys.argv])
    run("mount", "-t", "tmpfs", "tmpfs", "/run")
    make_hosts()
    chosen = [test for test in TESTS if not CASES or test[0] in CASES]
    print(f"1..{len(chosen)}", flush=True)
    failed = 0
    for number, (name, test, family) in enumerate(chosen, 1):
        try:
            skipped = test(family)
            print(f"ok {number} - {name}" + (f" # SKIP {skipped}" if skipped else ""), flush=True)
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"not ok {number} - {name}\n# {error!r}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
