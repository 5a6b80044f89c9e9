# SPDX-License-Identifier: GPL-2.0-only
"""A client of the RPC with nothing but the format of protocol buffers: fields by name, as images/rpc.proto has them."""
import os
import re
import socket
import subprocess

WIDTH = 262144


def read_schema(path):
    """{message: {field: (number, type, repeated)}}, {enum: {name: value}}"""
    with open(path, encoding="utf-8") as file:
        text = re.sub(r"//.*", "", file.read())
    messages, enums = {}, {}
    for kind, name, body in re.findall(r"(message|enum)\s+(\w+)\s*\{([^}]*)\}", text):
        if kind == "enum":
            enums[name] = {word: int(number) for word, number in re.findall(r"(\w+)\s*=\s*(\d+)", body)}
        else:
            messages[name] = {field: (int(number), of, label == "repeated") for label, of, field, number in
                              re.findall(r"(optional|required|repeated)\s+(\w+)\s+(\w+)\s*=\s*(\d+)", body)}
    return messages, enums


MESSAGES, ENUMS = read_schema(os.environ["RPC_PROTO"])
REQUEST = ENUMS["criu_req_type"]
NUMBERS = {number: name for name, number in REQUEST.items()}


def varint(number):
    number &= (1 << 64) - 1
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes(out + bytes([number]))


def encode(message, fields):
    out = b""
    for name, value in fields.items():
        number, kind, repeated = MESSAGES[message][name]
        for one in value if repeated else [value]:
            if kind in MESSAGES:
                data = encode(kind, one)
            elif kind == "string":
                data = os.fsencode(one)
            else:
                out += varint(number << 3) + varint(ENUMS[kind][one] if isinstance(one, str) else int(one))
                continue
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def decode(message, data):
    by_number = {number: (name, kind, repeated) for name, (number, kind, repeated) in MESSAGES[message].items()}
    at, fields = 0, {}

    def number():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = number()
        name, kind, repeated = by_number[tag >> 3]
        if tag & 7 == 2:
            size = number()
            value = data[at:at + size]
            at += size
            value = decode(kind, value) if kind in MESSAGES else os.fsdecode(value)
        else:
            value = number()
            if kind == "int32" and value >= 1 << 63:
                value -= 1 << 64
            value = bool(value) if kind == "bool" else value
        if repeated:
            fields.setdefault(name, []).append(value)
        else:
            fields[name] = value
    return fields


class Client:
    """One connection. Answers to notifications come from `notified(script, fields)`: True, False, or a whole answer."""

    def __init__(self, connection, worker=None):
        self.socket, self.worker = connection, worker
        self.events, self.descriptors = [], []
        self.notified = lambda script, fields: True

    @classmethod
    def swrk(cls, criu, *options, pass_fds=(), **popen):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        worker = subprocess.Popen([criu, *options, "swrk", str(theirs.fileno())],
                                  pass_fds=[theirs.fileno(), *pass_fds], **popen)
        theirs.close()
        return cls(ours, worker)

    @classmethod
    def connect(cls, path):
        ours = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.connect(path)
        return cls(ours)

    def send(self, kind, opts=None, **fields):
        request = {"type": kind, **fields}
        if opts is not None:
            request["opts"] = {"images_dir_fd": -1, **opts}
        self.socket.send(encode("criu_req", request))

    def receive(self):
        data, descriptors, _, _ = socket.recv_fds(self.socket, WIDTH, 4)
        self.descriptors += descriptors
        return decode("criu_resp", data) if data else None

    def call(self, kind, opts=None, **fields):
        """The final answer; what was asked meanwhile is answered and kept in `events`. None: the worker hung up."""
        self.send(kind, opts, **fields)
        while True:
            response = self.receive()
            if response is None or NUMBERS[response["type"]] != "NOTIFY":
                return response
            notify = response["notify"]
            self.events.append((notify["script"], notify.get("pid")))
            answer = self.notified(notify["script"], notify)
            if isinstance(answer, dict):
                self.send("NOTIFY", answer, notify_success=True)
            elif answer is not None:
                self.send("NOTIFY", notify_success=answer)

    def end(self):
        """The exit status of the worker."""
        self.socket.close()
        return self.worker.wait(timeout=60) if self.worker else None


def stand_alone(kept):
    """In a process that was forked: nothing ties it to who did that, but for one descriptor."""
    os.setsid()
    null = os.open("/dev/null", os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, kept)
    os.closerange(kept + 1, 1000)
