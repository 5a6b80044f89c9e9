#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# A shell at work: a child that squares numbers through a pair of pipes, a file that grows, a variable that counts.
dir=$1
coproc SQUARES { while read -r n; do echo $((n * n)); done; }
exec 9>"$dir/log"
count=0
said=no
while true; do
  count=$((count + 1))
  echo "$count" >&"${SQUARES[1]}"
  read -r square <&"${SQUARES[0]}"
  bad=
  [ "$square" = $((count * count)) ] || bad="BAD square of $count is $square"
  echo "$count" >&9
  if [ $said = no ]; then
    said=yes
    echo $$ >"$dir/ready.new" && mv "$dir/ready.new" "$dir/ready"
  fi
  if [ -n "$bad" ] || [ -e "$dir/go" ]; then
    lines=$(wc -l <"$dir/log")
    [ "$lines" = "$count" ] || bad="$bad BAD $lines lines of $count"
    rm -f "$dir/go"
    echo "count $count ${bad:-ok}" >"$dir/report.new" && mv "$dir/report.new" "$dir/report"
  fi
done
