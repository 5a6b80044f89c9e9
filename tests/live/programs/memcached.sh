#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A memcached on the port that the client chose.
exec memcached -u root -l 0.0.0.0 -p "$(cat "$1/outside-port")" -U 0
