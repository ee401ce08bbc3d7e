#!/usr/bin/env bash
# Runs root tests in a virtual machine, where control groups are of version 2,
# AppArmor is enabled and, with SYSTEMD=1, systemd is the first process; with
# SELINUX=1 SELinux enforces a small policy in AppArmor's place. By default what depends on those; PKGS="./internal/sys/cgroup …" and RUN=regexp
# choose otherwise, V=1 shows all output. Without /dev/kvm the processor is
# emulated, some ten times slower.
set -euo pipefail
cd "$(dirname "$0")/.."
# Without a guest nothing was tested, and that is said: aloud in CI, where only a
# qemu that cannot be installed is no failure.
skip() {
	echo "test-vm: SKIPPED, nothing was tested on control groups of version 2: $*" >&2
	[ -z "${VM_REQUIRED:-}" ] || exit 1
	[ -z "${CI:-}" ] || printf '%s\n' "" "################ NO VIRTUAL MACHINE ################" "# $*" "# Control groups of version 2, AppArmor and an older kernel went UNTESTED." "####################################################" "" >&2
	exit 0
}
must() { [ -z "${CI:-}" ] || { echo "test-vm: FAILED: $*" >&2; exit 1; }; skip "$@"; }
[ "$(uname -m)" = x86_64 ] || skip "the guest is for x86_64"
scripts/deps.sh qemu-system-x86 mmdebstrap busybox-static e2fsprogs || skip "qemu cannot be installed"
image=$(scripts/vm/image.sh) || must "Debian's kernel and packages cannot be had"

list=${LIST:-scripts/vm/list}
[ -z "${SYSTEMD:-}" ] || list=scripts/vm/list-systemd
[ -z "${SELINUX:-}" ] || list=scripts/vm/list-selinux
work=$(mktemp -d "${TMPDIR:-/tmp}/skiff-vm.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/disk/src"
if [ -n "${PKGS:-}" ]; then
	for p in $PKGS; do echo "${p#./}"; done
else
	grep -v '^#' "$list"
fi >"$work/disk/list"
printf 'RUN=%q\nTIMEOUT=%q\nVERBOSE=%q\n' "${RUN:-}" "${TIMEOUT:-600}" "${V:-}" >"$work/disk/options"
cp scripts/vm/guest "$work/disk/guest"
lsm=apparmor
if [ -n "${SELINUX:-}" ]; then
	lsm=selinux
	scripts/deps.sh checkpolicy || skip "no compiler of SELinux policies can be installed"
	awk '/^@CATEGORIES@$/ { for (i = 0; i < 1024; i++) print "category c" i ";"; next } 1' scripts/vm/selinux.conf >"$work/policy.conf"
	# Version 33 is of kernel 5.14; whatever a policy does not know is allowed.
	checkpolicy -M -U allow -c 33 -o "$work/disk/policy" "$work/policy.conf" >/dev/null
fi
cp -r bin "$work/disk/bin"
export CGO_ENABLED=0
while read -r pkg _; do
	to=$work/disk/src/$pkg
	mkdir -p "$to"
	go test -tags root -c -ldflags '-s -w' -o "$to/vm.test" "./$pkg"
	[ ! -d "$pkg/testdata" ] || cp -r "$pkg/testdata" "$to/"
done <"$work/disk/list"
mkdir -p "$work/disk/src/docs"
cp docs/conformance.md "$work/disk/src/docs/"
if grep -q '^test/api' "$work/disk/list"; then # the description of the API, which the guest has no module cache for
	cp -r "$(go list -m -f '{{.Dir}}' github.com/moby/moby/api)" "$work/disk/api"
fi
if grep -q '^test/conformance' "$work/disk/list"; then
	(
		cd test/conformance/suite
		export GOFLAGS=-mod=mod
		mkdir -p "$work/disk/suite"
		# shellcheck disable=SC2046
		go build -ldflags '-s -w' -o "$work/disk/suite/" $(go list -e -tags tools -f '{{join .Imports "\n"}}' .)
		cp "$(go list -m -f '{{.Dir}}' github.com/opencontainers/runtime-tools)/rootfs-amd64.tar.gz" "$work/disk/suite/"
	)
fi
truncate -s 2G "$work/disk.img"
mke2fs -q -F -t ext4 -O ^has_journal -d "$work/disk" "$work/disk.img"
rm -rf "$work/disk"

# A /dev/kvm that is there may still not work (nested, restricted): see whether
# the initial RAM disk is reached, once.
accel=${VM_ACCEL:-$(cat "$image/accel" 2>/dev/null || true)}
machine=(-machine q35 -cpu "max,la57=off,arch-capabilities=off" -smp 2 -m 2560 -nodefaults -display none -no-reboot
	-kernel "$image/vmlinuz" -initrd "$image/initrd.gz")
if [ -z "$accel" ]; then
	accel=tcg
	if [ -w /dev/kvm ] && timeout 8 qemu-system-x86_64 -accel kvm "${machine[@]}" -serial stdio \
		-append "console=ttyS0 quiet panic=-1 skiff.probe" </dev/null 2>&1 | grep -q skiff-probe; then
		accel=kvm
	fi
	echo "$accel" >"$image/accel"
fi
: >"$work/result"
# Whatever the guest writes to its disks is thrown away; it has no network.
timeout -k 5 "${VM_TIMEOUT:-1200}" qemu-system-x86_64 -accel "$accel" "${machine[@]}" -serial stdio -serial "file:$work/result" \
	-device virtio-rng-pci \
	-drive "if=virtio,format=raw,snapshot=on,file=$image/root.img" \
	-drive "if=virtio,format=raw,snapshot=on,file=$work/disk.img" \
	-append "console=ttyS0 quiet loglevel=3 panic=-1 cgroup_no_v1=all systemd.unified_cgroup_hierarchy=1 $lsm=1 security=$lsm mitigations=off ${SYSTEMD:+skiff.systemd systemd.run=/work/guest systemd.show_status=0}" \
	</dev/null | sed -u 's/\r//g' || { echo "test-vm: the guest was ended: it did not finish within ${VM_TIMEOUT:-1200} s" >&2; exit 1; }
case $(tr -d '\r\n' <"$work/result") in
0) ;;
1) exit 1 ;;
*) echo "test-vm: the guest went down before the tests were done" >&2; exit 1 ;;
esac
