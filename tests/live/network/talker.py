#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""talker.py OWN-ADDRESS PEER-ADDRESS PEER-PORT LISTEN-PORT LINK-ADDRESS%DEVICE [patient]

Calls the peer, listens, there and on a link, and answers each line of the peer's with a number that grows. A patient one
tries again where it is told that it may not (EPERM).
"""
import socket
import sys

own, peer, peer_port, listen_port = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
listener = socket.create_server((own, listen_port))
address, device = sys.argv[5].split("%")
link = socket.socket(socket.AF_INET6)
link.bind((address, listen_port, 0, socket.if_nametoindex(device)))
link.listen()
line = socket.create_connection((peer, peer_port), source_address=(own, 0))
patient = sys.argv[6:] == ["patient"]


def insist(call, argument):
    while True:
        try:
            return call(argument)
        except PermissionError:
            if not patient:
                raise


count = 0
while insist(line.recv, 64):
    count += 1
    insist(line.send, b"%d\n" % count)
