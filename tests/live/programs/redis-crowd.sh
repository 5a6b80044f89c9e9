#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A redis for as many clients as the limit on open files allows, on the port that the client chose.
ulimit -n "$(ulimit -H -n)"
exec redis-server --bind 0.0.0.0 --protected-mode no --port "$(cat "$1/outside-port")" --save '' --dir "$1" --maxclients 10010 \
  --timeout 0 --tcp-keepalive 0 --tcp-backlog 511
