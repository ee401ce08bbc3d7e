#!/usr/bin/env bash
# Makes the guest of test-vm, once: Debian's kernel for clouds, an initial
# RAM disk that finds the disk, and a small Debian with AppArmor and systemd.
# VM_PACKAGES="podman …" adds others, VM_SUITE is another Debian. Prints the directory, which is named after
# what the guest is made of.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
suite=${VM_SUITE:-bookworm}
more=$(echo "${VM_PACKAGES:-}" | xargs | tr ' ' ,)
hash=$({ cat "$here"/image.sh "$here"/initrd; echo "$more"; } | sha256sum | cut -c1-12)
out=${XDG_CACHE_HOME:-$HOME/.cache}/skiff/vm-$suite-$hash
if [ -e "$out/done" ]; then echo "$out"; exit 0; fi

mkdir -p "$out"
tmp=$(mktemp -d "${TMPDIR:-/tmp}/skiff-vm-image.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
root=$tmp/root
# The kernel is unpacked and not installed: nothing here needs its scripts.
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase --mode=root --skip=output/mknod \
	--include=systemd-sysv,dbus,apparmor,busybox-static,iproute2,nftables,kmod,procps,ca-certificates,cpio,xfsprogs${more:+,$more} \
	--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
	--customize-hook='set -e; cd "$1"; export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
		name=$(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: \(linux-image-[0-9].*\)/\1/p" | head -n1)
		apt-get -q download "$name" >&2; dpkg-deb --fsys-tarfile linux-image-*.deb | tar -x --keep-directory-symlink; rm linux-image-*.deb' \
	"$suite" "$root" >&2
version=$(ls "$root/usr/lib/modules")
chroot "$root" depmod "$version"
mv "$root/boot/vmlinuz-$version" "$out/vmlinuz"
rm -rf "${root:?}"/boot/*
mkdir -p "$root/work"
: >"$root/etc/fstab"
echo skiff-vm >"$root/etc/hostname"
printf '127.0.0.1 localhost skiff-vm\n' >"$root/etc/hosts"

# The initial RAM disk: busybox and the modules of the disk.
ram=$root/ram
mkdir -p "$ram"/{bin,dev,proc,sys,mnt,modules}
cp "$root/bin/busybox" "$ram/bin/"
install -m 755 "$here/initrd" "$ram/init"
for m in virtio_pci virtio_blk; do
	chroot "$root" modprobe -S "$version" --show-depends "$m" | awk '/^insmod/ {print $2}'
done | awk '!seen[$0]++' | while read -r file; do
	cp "$root$file" "$ram/modules/"
	basename "$file" >>"$ram/modules/order"
done
chroot "$root" sh -c 'cd /ram && find . | cpio --quiet -o -H newc | gzip -1' >"$out/initrd.gz"
rm -r "$ram"

truncate -s 3G "$out/root.img"
mke2fs -q -F -t ext4 -O ^has_journal -L skiff-root -d "$root" "$out/root.img" >&2
touch "$out/done"
echo "$out"
