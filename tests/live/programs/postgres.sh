#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# A postgres of the user of that name, on the port that the client chose. It serves once its first start is over.
set -e
bin=$(ls -d /usr/lib/postgresql/*/bin | tail -n 1)
dir=$1
mkdir "$dir/postgres"
chown postgres: "$dir/postgres"
cd "$dir/postgres"
as_postgres() { setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; }
as_postgres "$bin/initdb" --no-sync --auth=trust --encoding=UTF8 --locale=C -D "$dir/postgres/data" >initdb.log 2>&1
echo 'host all all 0.0.0.0/0 trust' >>"$dir/postgres/data/pg_hba.conf"
: >"$dir/outside-made"
exec setpriv --reuid=postgres --regid=postgres --clear-groups "$bin/postgres" -D "$dir/postgres/data" \
  -p "$(cat "$dir/outside-port")" -c listen_addresses=0.0.0.0 -c unix_socket_directories="$dir/postgres" \
  -c fsync=off -c shared_buffers=16MB -c dynamic_shared_memory_type=mmap
