#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Compiles first: a JVM that has run the compiler has many more things open than one that runs a program.
set -e
javac -d "$1" "$(dirname "$0")/Work.java"
exec java -XX:-UsePerfData -cp "$1" Work "$1"
