#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What a checkpoint with a TCP connection does to the network around it, when all goes well and when nothing does: the
lock, what is left of it, and what addresses, routes and ports a restore finds. Run in a network namespace of its own.

network_test.py CRIU-CLI [CASE...]        in TAP
"""
import os
import select
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

CRIU, CHOSEN = os.path.abspath(sys.argv[1]), sys.argv[2:]
HERE = os.path.dirname(os.path.abspath(__file__))
OWN, PEER, PORT, LINK = "192.0.2.1", "192.0.2.2", 7007, "fe80::77"


class Failure(Exception):
    pass


def expect(condition, text):
    if not condition:
        raise Failure(text)


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def rules():
    """What there is of firewall, as text."""
    return run("nft", "list", "ruleset")


class Tree:
    """A process that is to be dumped, and its peer: this process, which must not notice."""

    def __init__(self, directory, *, patient):
        self.directory = directory
        self.count = 0
        self.asked = False
        server = socket.create_server((PEER, 0))
        # A session of its own; its parent is whoever reaps orphans here.
        port = str(server.getsockname()[1])
        self.process = subprocess.Popen(["setsid", sys.executable, HERE + "/talker.py", OWN, PEER, port, str(PORT),
                                         LINK + "%wire", *(["patient"] if patient else [])],
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                        cwd="/")
        self.pid = self.process.pid
        server.settimeout(20)
        self.line, _ = server.accept()
        self.line.settimeout(60)
        server.close()
        self.talk("at first")

    def talk(self, when):
        expect(self.answers(when), f"{when}: the tree ended")

    def answers(self, when):
        """Asks the tree: whether it answers or ends first. A question that nobody answered is still on its way to who is
        restored next."""
        ended = select.poll()
        ended.register(self.line, select.POLLIN)
        try:
            pidfd = os.fdopen(os.pidfd_open(self.pid), "rb")
        except ProcessLookupError:
            return False
        with pidfd:
            ended.register(pidfd, select.POLLIN)
            try:
                if not self.asked:
                    self.line.sendall(b"?\n")
                    self.asked = True
                ready = [file for file, _ in ended.poll(60000)]
                expect(ready, f"{when}: neither an answer nor an end")
                if self.line.fileno() not in ready:
                    self.reap()
                    return False
                answer = b""
                while not answer.endswith(b"\n"):
                    part = self.line.recv(64)
                    expect(part, f"{when}: the connection ended")
                    answer += part
            except OSError as error:
                raise Failure(f"{when}: the peer was told {error}") from error
        self.asked = False
        self.count += 1
        expect(answer == b"%d\n" % self.count, f"{when}: {answer} instead of {self.count}")
        return True

    def alive(self):
        try:
            with open(f"/proc/{self.pid}/stat", encoding="utf-8") as file:
                return file.read().rsplit(")", 1)[1].split()[0] not in "ZX"
        except OSError:
            return False

    def criu(self, command, *arguments, images="images", before=()):
        """Its exit status and what it said."""
        folder = os.path.join(self.directory, images)
        os.makedirs(folder, exist_ok=True)
        log = os.path.join(folder, command + ".log")
        if os.path.exists(log):
            os.unlink(log)
        done = subprocess.run([*before, CRIU, command, "-D", folder, "-v4", "-o", log, "--tcp-established", *arguments],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        said = done.stdout + done.stderr
        if os.path.exists(log):
            with open(log, encoding="utf-8") as file:
                said += file.read()
        return done.returncode, said

    def dump(self, *arguments, **more):
        status, said = self.criu("dump", "-t", str(self.pid), *arguments, **more)
        expect(status == 0, "the dump failed: " + said[-2000:])
        self.reap()
        return said

    def restore(self, *arguments, **more):
        status, said = self.criu("restore", "-d", *arguments, **more)
        expect(status == 0, "the restore failed: " + said[-2000:])
        return said

    def restore_fails(self, words, **more):
        status, said = self.criu("restore", "-d", **more)
        self.reap()
        expect(status != 0, "the restore was meant to fail")
        expect(words in said, f"the restore did not say \"{words}\": {said[-2000:]}")
        expect(not self.alive(), "the failed restore left a task")

    def reap(self):
        """Who is dead need not be seen."""
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    return
            except ChildProcessError:
                return

    def end(self):
        self.line.close()
        if self.alive():
            pidfd = os.pidfd_open(self.pid)
            os.kill(self.pid, signal.SIGKILL)
            ended = select.poll()
            ended.register(pidfd, select.POLLIN)
            ended.poll(10000)
            os.close(pidfd)
        self.reap()


def round_trip(tree, *arguments):
    tree.dump(*arguments)
    tree.restore()
    tree.talk("after the restore")


def link_local(tree):
    """An address that is the same on every link comes back on its own."""
    before = run("ss", "-6ltnH")
    expect(f"[{LINK}]%wire:{PORT}" in before, "it does not listen on the link: " + before)
    round_trip(tree)
    expect(run("ss", "-6ltnH") == before, "it listens elsewhere: " + run("ss", "-6ltnH"))


def nftables_leave_nothing(tree):
    before = rules()
    tree.dump("--network-lock", "nftables", "-R")
    expect(rules() == before, "rules are left of a dump: " + rules())
    tree.talk("after the dump")
    round_trip(tree, "--network-lock", "nftables")
    expect(rules() == before, "rules are left of a restore: " + rules())


def iptables_leave_nothing(tree):
    before = rules()
    tree.dump("--network-lock", "iptables", "-R")
    expect(rules() == before, "rules are left of a dump: " + rules())
    tree.talk("after the dump")
    tree.dump("--network-lock", "iptables")
    expect("drop" in rules().lower(), "the lock of the dump is not there: " + rules())
    tree.restore()
    tree.talk("after the restore")
    expect(rules() == before, "rules are left of a restore: " + rules())


def iptables_of_others(tree):
    run("iptables", "-A", "INPUT", "-p", "udp", "--dport", "7", "-j", "DROP")

    def saved():
        return [line for line in run("iptables-save", "-t", "filter").splitlines() if line.startswith("-A")]

    before = saved()
    tree.dump("--network-lock", "iptables")
    expect(len(saved()) == len(before) + 2, "the lock is not there: " + str(saved()))
    tree.restore()
    tree.talk("after the restore")
    expect(saved() == before, "the rules of others changed: " + str(saved()))


def start_time(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return file.read().rsplit(")", 1)[1].split()[19]


def stale_nftables(tree):
    run("nft", f"add table inet CRIU-left-behind {{ comment \"tree {tree.pid} {start_time(tree.pid)}\"; }}")
    run("nft", "add table inet CRIU-of-a-checkpoint { comment \"tree 1 1\"; }")
    run("nft", "add table inet CRIU-by-somebody")
    said = tree.dump("--network-lock", "nftables", "-R")
    expect("CRIU-left-behind is left over" in said, "it does not say so: " + said[-2000:])
    expect("CRIU-left-behind" not in rules(), "the table is still there")
    expect("CRIU-of-a-checkpoint" in rules() and "CRIU-by-somebody" in rules(), "more was removed: " + rules())
    tree.talk("after the dump")


def killing(call, count):
    """What kills the program behind it as it begins the nth call of a kind."""
    return ["strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={count}"]


def killed_at(tree, call, count, *arguments, images="cut"):
    """A dump that is killed as it begins the nth call of a kind; its exit status."""
    shutil.rmtree(os.path.join(tree.directory, images), ignore_errors=True)
    status, _ = tree.criu("dump", "-t", str(tree.pid), *arguments, images=images, before=killing(call, count))
    tree.reap()
    return status


def stale_iptables(tree):
    """As it is left where not only the dumping program was killed, but also who keeps the lock for it."""
    gone = subprocess.Popen(["true"])
    gone.wait()
    space = os.readlink("/proc/self/ns/pid")
    run("iptables", "-N", "CRIU-for-1")
    run("iptables", "-A", "CRIU-for-1", "-m", "comment", "--comment", f"of {gone.pid} 1 {space}")
    run("iptables", "-A", "CRIU-for-1", "-p", "tcp", "-s", PEER, "-j", "DROP")
    for chain in ("INPUT", "OUTPUT"):
        run("iptables", "-I", chain, "-j", "CRIU-for-1")
    said = tree.dump("--network-lock", "iptables", "-R")
    expect("left over from a run that was killed" in said, "it does not say so: " + said[-2000:])
    expect("CRIU" not in rules(), "the chain is still there: " + rules())
    tree.talk("after the dump")


def complete(tree, images="cut"):
    return os.path.exists(os.path.join(tree.directory, images, "inventory.img"))


def killed_anywhere(tree, method, calls):
    """A dump that is killed leaves the tree with its connection, or a checkpoint with it. The calls are such that none
    comes while a connection is being copied: then the tree may hear of it (EPERM) before the keeper has put it back."""
    trees = checkpoints = 0
    for call in calls:
        count = 1
        while True:
            status = killed_at(tree, call, count, "--network-lock", method)
            when = f"killed at call {count} of {call}"
            settle(tree)
            # One that is about to die may still look alive: only its answer tells.
            if tree.answers(when):
                trees += 1
                expect("CRIU" not in rules() and "drop" not in rules().lower(),
                       f"{when}: the tree lives, but the lock is there: {rules()}")
            else:
                expect(complete(tree), f"{when}: no tree, no checkpoint")
                checkpoints += 1
                expect("drop" in rules().lower(), f"{when}: there is a checkpoint, but no lock: {rules()}")
                expect("CRIU-for" not in rules(), f"{when}: the lock of the dump itself is there: {rules()}")
                tree.restore(images="cut")
            tree.talk(when)
            if status == 0:
                break
            # Most of many calls of a kind are alike; the few waits are not.
            count += 1 if count < 4 or call == "wait4" else count // 2
    print(f"# {method}: {trees} trees went on, {checkpoints} checkpoints were restored")
    expect(trees > 10 and checkpoints > 0, "the dumps were all killed on one side of the point of no return")


def killed_copy(tree):
    """Whatever was done to a connection for its copy is undone when the dump is killed: the peer never notices, and the
    tree is told EPERM at worst."""
    for method in ("nftables", "iptables", "skip"):
        count = 1
        while killed_at(tree, "setsockopt", count, "--network-lock", method, "-R") != 0:
            settle(tree)
            tree.talk(f"{method}: killed at call {count} of setsockopt")
            expect("CRIU" not in rules() and "drop" not in rules().lower(), "rules are left: " + rules())
            count += 1
        expect(count > 5, f"{method}: no dump was killed in the middle of a copy")
        tree.talk(f"{method}: after a whole dump")


def settle(tree):
    """Waits until nobody keeps anything for a dump that is gone."""
    while True:
        left = keepers()
        tree.reap()
        if not left:
            return
        for pidfd in left:
            with pidfd:
                ended = select.poll()
                ended.register(pidfd, select.POLLIN)
                expect(ended.poll(20000), "somebody is left of a dump")


def keepers():
    """Open pidfds of what is left of our programs in this network namespace, but for the dead."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                    text = file.read()
                ours = os.readlink(f"/proc/{entry}/ns/net") == os.readlink("/proc/self/ns/net")
                if ours and text[text.index("(") + 1:text.rindex(")")] == "criu-cli":
                    found.append(os.fdopen(os.pidfd_open(int(entry)), "rb"))
            except (OSError, ValueError):
                pass
    return found


def killed_dump(tree):
    killed_anywhere(tree, "nftables", ("kill", "sendto", "ptrace", "close"))


def killed_dump_iptables(tree):
    killed_anywhere(tree, "iptables", ("kill", "ptrace", "vfork", "wait4"))


def failed_restore(tree):
    """Each fails with a word of what is in the way, leaves the lock, and does no harm to the next attempt."""
    tree.dump("--network-lock", "nftables")
    locked = rules()
    taker = socket.create_server((OWN, PORT))
    tree.restore_fails("another program has taken it")
    expect(rules() == locked, "the lock of the dump is gone: " + rules())
    taker.close()
    run("ip", "addr", "del", OWN + "/32", "dev", "lo")
    tree.restore_fails("the address must be on this machine again first")
    expect(rules() == locked, "the lock of the dump is gone: " + rules())
    run("ip", "addr", "add", OWN + "/32", "dev", "lo")
    run("ip", "addr", "del", PEER + "/32", "dev", "lo")
    tree.restore_fails("the route to the peer must be there first")
    expect(rules() == locked, "the lock of the dump is gone: " + rules())
    run("ip", "addr", "add", PEER + "/32", "dev", "lo")
    tree.restore()
    tree.talk("after the restore")
    expect("CRIU" not in rules(), "rules are left: " + rules())


def address_in_use(tree):
    """The tree goes on after its dump, so that the very connection is there."""
    tree.dump("--network-lock", "nftables", "-R")
    pid = tree.pid
    status, _ = tree.criu("restore", "-d")
    expect(status != 0, "it was restored beside itself")
    expect(tree.alive() and tree.pid == pid, "the tree is gone")
    tree.talk("after the restore that failed")
    expect("CRIU" not in rules(), "rules are left: " + rules())


def killed_restore(tree):
    tree.dump("--network-lock", "nftables")
    locked = rules()
    cut = 0
    for call in ("clone3", "futex", "ptrace", "wait4", "openat"):
        for count in (1, 2, 3, 5, 8, 13, 21, 34):
            when = f"killed at call {count} of {call}"
            status, _ = tree.criu("restore", "-d", before=killing(call, count))
            settle(tree)
            if tree.answers(when):
                tree.dump("--network-lock", "nftables")
                locked = rules()
            else:
                cut += 1
                expect(rules() == locked, f"{when}: the lock is gone: {rules()}")
            if status == 0:
                break
    print(f"# {cut} restores were killed")
    expect(cut > 5, f"only {cut} restores were killed")
    tree.restore()
    tree.talk("after the last restore")


def another_machine(tree):
    """A restore finds no lock, as where the dump was made elsewhere."""
    for method in ("nftables", "iptables"):
        tree.dump("--network-lock", method)
        # Its peer is here, and must not talk to nobody meanwhile.
        run("nft", "add table inet elsewhere; add chain inet elsewhere out { type filter hook output priority 0; }; "
            f"add rule inet elsewhere out ip daddr {OWN} drop; add rule inet elsewhere out ip saddr {OWN} drop")
        for table in re.findall(r"table (\w+ \S+) {", rules()):
            if "elsewhere" not in table:
                run("nft", f"delete table {table}")
        status, said = tree.criu("restore", "-d")
        run("nft", "delete table inet elsewhere")
        expect(status == 0, "the restore failed: " + said[-2000:])
        tree.talk("after the restore elsewhere")
        expect("CRIU" not in rules(), "rules are left: " + rules())
        run("nft", "flush", "ruleset")


def no_firewall(tree):
    """Without the right to change the network."""
    without = ["setpriv", "--inh-caps", "-net_admin", "--bounding-set", "-net_admin"]
    for arguments, words in (((), "neither nftables nor iptables works here"),
                             (("--network-lock", "nftables"), "nftables is not usable here"),
                             (("--network-lock", "iptables"), "--network-lock nftables or skip does without it"),
                             (("--network-lock", "skip"), "CAP_NET_ADMIN")):
        status, said = tree.criu("dump", "-t", str(tree.pid), *arguments, before=without)
        expect(status != 0, f"the dump with {arguments} was meant to fail")
        expect(words in said, f"the dump did not say \"{words}\": {said[-2000:]}")
        tree.talk("after a dump that failed")
    expect("CRIU" not in rules(), "rules are left: " + rules())
    tree.dump("--network-lock", "nftables")
    status, said = tree.criu("restore", "-d", before=without)
    tree.reap()
    expect(status != 0 and "must be usable here to unlock it" in said, "the restore said: " + said[-2000:])
    expect(not tree.alive(), "the failed restore left a task")
    tree.restore()
    tree.talk("after the restore")


CASES = {
    "an address of a link comes back on that link": link_local,
    "nftables: nothing is left of a dump and a restore": nftables_leave_nothing,
    "iptables: nothing is left of a dump and a restore, not even an empty table": iptables_leave_nothing,
    "iptables: the rules of others stay as they are": iptables_of_others,
    "nftables: a lock that a killed dump left is found and removed": stale_nftables,
    "iptables: a lock that a killed dump left is found and removed": stale_iptables,
    "nftables: a dump that is killed: the tree or its checkpoint, with the connection": killed_dump,
    "iptables: a dump that is killed: the tree or its checkpoint, with the connection": killed_dump_iptables,
    "a dump that is killed while it copies a connection: it goes on": killed_copy,
    "a restore that fails keeps the lock, and another one works: port, address, route": failed_restore,
    "a restore beside the living tree fails, and the tree goes on": address_in_use,
    "a restore that is killed keeps the lock, and another one works": killed_restore,
    "a restore where no lock is": another_machine,
    "nftables and iptables not usable": no_firewall,
}


def play(number, name, case):
    directory = tempfile.mkdtemp(prefix="criu-network-")
    problem = None
    tree = None
    try:
        tree = Tree(directory, patient=case is killed_copy)
        case(tree)
    except (Failure, subprocess.SubprocessError, OSError) as error:
        problem = str(error) + (error.stderr or "" if isinstance(error, subprocess.CalledProcessError) else "")
    finally:
        if tree is not None:
            tree.end()
        subprocess.run(["nft", "flush", "ruleset"], check=False)
        shutil.rmtree(directory, ignore_errors=True)
    print(("ok" if problem is None else "not ok"), number, "-", name, flush=True)
    for line in (problem or "").splitlines():
        print("#", line, flush=True)
    return problem is None


def main():
    if os.geteuid() != 0:
        print("1..0 # SKIP checkpoints need root")
        return 0
    import ctypes
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: restored trees are handed on to this process
    run("ip", "link", "set", "lo", "up")
    for address in (OWN, PEER):
        run("ip", "addr", "add", address + "/32", "dev", "lo")
    run("ip", "link", "add", "other", "type", "veth", "peer", "name", "wire")
    for device in ("other", "wire"):
        run("ip", "link", "set", device, "up")
    run("ip", "addr", "add", LINK + "/64", "dev", "wire", "nodad")
    chosen = {name: case for name, case in CASES.items() if not CHOSEN or any(part in name for part in CHOSEN)}
    print(f"1..{len(chosen)}", flush=True)
    good = [play(number, name, case) for number, (name, case) in enumerate(chosen.items(), 1)]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
