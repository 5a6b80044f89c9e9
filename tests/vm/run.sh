#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs the live tests on a stock Debian kernel in QEMU, without KVM. usage: run.sh BUILD-DIR [LIVE-ARGUMENTS...]
#
# The machine is a kernel from Debian's archive and an initramfs of what the tests need of this system; it has no disk
# and no network. What the tests say comes over the serial line.
set -euo pipefail
build=$1
shift
arguments=${*:-}
here=$(cd "$(dirname "$0")" && pwd)
work=$build/vm
root=$work/root
mkdir -p "$work"

# A stock kernel, kept between runs.
kernel=$(find "$work" -name 'vmlinuz-*' -print -quit)
if [ -z "$kernel" ]; then
  package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
  (cd "$work" && apt-get download "$package" && dpkg-deb -x linux-image-*.deb kernel)
  kernel=$(find "$work/kernel/boot" -name 'vmlinuz-*' -print -quit)
fi

# A program or library with everything it loads, under the path that it has here.
add() {
  local file
  for file in "$@" $(ldd "$@" 2>/dev/null | grep -o '/[^ ]*' | grep -v ':$'); do
    file=$(realpath -s "$file")
    [ -e "$root$file" ] || install -D "$(realpath "$file")" "$root$file"
  done
}

rm -rf "$root"
mkdir -p "$root"/{proc,sys,dev,tmp,bin,etc}
install "$(command -v busybox)" "$root/bin/busybox"
add "$build/tests/live/live"
if [ -x "$build/tools/criu-cli/criu-cli" ]; then
  add "$build/tools/criu-cli/criu-cli"
fi
install -m 0755 "$here/init" "$root/init"
{
  echo "live=$build/tests/live/live"
  echo "criu=$build/tools/criu-cli/criu-cli"
  echo "arguments='$arguments'"
} >"$root/etc/run"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"

# -cpu max: with TCG everything QEMU can do, AVX included. The panic option turns a dead init into an exit.
qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 2 -m 2048 -nographic -no-reboot -nodefaults -serial stdio \
  -kernel "$kernel" -initrd "$work/initrd.gz" \
  -append "console=ttyS0 quiet panic=-1 rdinit=/init" </dev/null | tr -d '\r' | tee "$work/output"
grep -q '^vm: status 0$' "$work/output"
