#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Checkpoints an interpreter with threads, an open file and a child behind a pipe, shows the image, restores it, and
# shows that it goes on where it was. usage: demo.sh CRIU-CLI
set -euo pipefail
criu=$1
if [ "$(id -u)" != 0 ]; then
  exec sudo "$0" "$@"
fi
# In a pid namespace of its own: its pids are free for certain when the program comes back, and nothing of the demo
# survives it.
if [ $$ != 1 ]; then
  exec unshare --pid --fork --mount-proc --kill-child "$0" "$@"
fi
dir=$(mktemp -d /tmp/criu-demo-XXXXXX)
images=$dir/images
mkdir "$images"
pid=
cleanup() {
  if [ -n "$pid" ]; then
    # Its group is its session's: the worker and its child.
    kill -KILL -- "-$pid" 2>/dev/null || true
  fi
  rm -rf "$dir"
}
trap cleanup EXIT

say() { printf '\n== %s\n' "$*"; }
# Waits until the log is longer than so many lines.
log_beyond() {
  timeout 20 sh -c "tail -q -n +1 -F '$dir/log' 2>/dev/null | head -n $(($1 + 1)) >/dev/null" || {
    echo "the program does not go on" >&2
    exit 1
  }
}

say "a program at work: python3 with threads, an open log, a child behind a pipe"
setsid "$(dirname "$0")/worker.py" "$dir" </dev/null >/dev/null 2>&1 &
pid=$!
log_beyond 5
tail -n 2 "$dir/log"
echo "pid $pid: $(tr '\0' ' ' <"/proc/$pid/cmdline"), $(ls "/proc/$pid/task" | wc -l) threads"

say "criu-cli dump -t $pid -D $images"
"$criu" dump -t "$pid" -D "$images" -v4 -o dump.log || { tail -n 20 "$images/dump.log"; exit 1; }
{ wait "$pid" || true; } 2>/dev/null
[ ! -e "/proc/$pid" ] && echo "pid $pid is gone; its last line:"
tail -n 1 "$dir/log"
lines=$(wc -l <"$dir/log")

say "what is in the image"
ls -sh --format=single-column "$images" | sed 's/^/  /'

say "criu-cli restore -d -D $images"
"$criu" restore -d -D "$images" -v4 -o restore.log || { tail -n 20 "$images/restore.log"; exit 1; }
log_beyond "$lines"
echo "pid $pid is back: $(tr '\0' ' ' <"/proc/$pid/cmdline"), $(ls "/proc/$pid/task" | wc -l) threads; it goes on where it was:"
tail -n +"$lines" "$dir/log" | head -n 2
echo
echo "The demo worked."
