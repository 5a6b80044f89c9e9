#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A redis that keeps everything in memory, on the port that the client chose.
exec redis-server --bind 0.0.0.0 --protected-mode no --port "$(cat "$1/outside-port")" --save '' --dir "$1"
