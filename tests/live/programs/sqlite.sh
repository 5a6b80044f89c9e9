#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# sqlite3 with a database in memory alone, asked through pipes; what it knows is nowhere else.
dir=$1
coproc DB { sqlite3 -batch :memory: 2>&1; }
ask() {
  echo "$1" >&"${DB[1]}"
  read -r answer <&"${DB[0]}"
}
echo "create table numbers(n integer primary key, square integer);" >&"${DB[1]}"
n=0
said=no
while true; do
  n=$((n + 1))
  ask "insert into numbers values($n, $((n * n))); select max(n) from numbers;"
  bad=
  [ "$answer" = $n ] || bad="BAD maximum $answer, not $n"
  if [ $said = no ]; then
    said=yes
    echo $$ >"$dir/ready.new" && mv "$dir/ready.new" "$dir/ready"
  fi
  if [ -n "$bad" ] || [ -e "$dir/go" ]; then
    rm -f "$dir/go"
    ask "select count(*) from numbers where square <> n * n;"
    [ "$answer" = 0 ] || bad="$bad BAD $answer wrong rows"
    ask "pragma integrity_check;"
    [ "$answer" = ok ] || bad="$bad BAD integrity: $answer"
    echo "rows $n ${bad:-ok}" >"$dir/report.new" && mv "$dir/report.new" "$dir/report"
  fi
done
