#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# Runs tests on a stock Debian kernel in QEMU, without KVM. usage: run.sh BUILD-DIR [NAME...] [-- ARGUMENT...]
#
# The machine sees this one's root over virtio-9p, read-only, so it has the same programs and libraries under the same
# paths; what is written goes to its memory. It has no network. What the tests say comes over the serial line.
set -euo pipefail
build=$(realpath "$1")
shift
here=$(cd "$(dirname "$0")" && pwd)
source=$(cd "$here/../.." && pwd)
work=$build/vm
root=$work/root
mkdir -p "$work"
if [ "$(id -u)" != 0 ]; then
  echo "vm-test: not every file of the system may be read: run it as root" >&2
  exit 1
fi

# A stock kernel, kept between runs.
if [ ! -d "$work/kernel" ]; then
  package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: *\(linux-image-[0-9].*\)/\1/p' | head -n 1)
  # apt leaves files of root to a user of its own, which cannot write here.
  (cd "$work" && apt-get -o APT::Sandbox::User=root download -q "$package")
  rm -rf "$work/unpacked"
  dpkg-deb -x "$work"/linux-image-*.deb "$work/unpacked"
  depmod -b "$work/unpacked" "$(ls "$work/unpacked/lib/modules")"
  mv "$work/unpacked" "$work/kernel"
fi
version=$(ls "$work/kernel/lib/modules")

rm -rf "$root"
mkdir -p "$root"/{proc,dev,bin,etc,new,tree,modules}
install "$(command -v busybox)" "$root/bin/busybox"
install -m 0755 "$here/init" "$root/init"
# In the order in which they have to be loaded: what the root comes over, and what a running system would load by itself
# when it is asked for (the machine sees this one's /lib/modules, not its own).
number=100
for module in virtio_pci 9pnet_virtio 9p unix_diag tcp_diag udp_diag raw_diag netlink_diag af_packet_diag tun; do
  modprobe -d "$work/kernel" -S "$version" --show-depends "$module"
done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r file; do
  install -m 0644 "$file" "$root/modules/$number-$(basename "$file")"
  number=$((number + 1))
done
printf 'source=%q\nscript=%q\n' "$source" "$work/tests.sh" >"$root/etc/run"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initrd.gz"
python3 "$here/plan.py" script "$build" "$@" >"$work/tests.sh"

# -cpu max: with TCG everything QEMU can do, AVX included. The panic option turns a dead init into an exit.
qemu-system-x86_64 -machine q35,accel=tcg -cpu max -smp 2 -m 3072 -display none -no-reboot -nodefaults \
  -serial stdio -kernel "$work/kernel/boot/vmlinuz-$version" -initrd "$work/initrd.gz" \
  -fsdev local,id=root,path=/,security_model=none,readonly=on,multidevs=remap \
  -device virtio-9p-pci,fsdev=root,mount_tag=root \
  -append "console=ttyS0 quiet panic=-1 rdinit=/init" </dev/null | sed -u 's/\r$//; s/\x1b\[[0-9;?]*[a-zA-Z]//g' | tee "$work/output"
python3 "$here/plan.py" log "$work/output" >"$work/testlog.json"
python3 "$here/../summary.py" "$work/testlog.json"
