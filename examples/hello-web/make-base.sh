#!/bin/sh
# Makes a base image's root file system from Debian's busybox-static, without
# any registry: make-base.sh [FILE.tar]. Without a file it goes to STDOUT:
#
#     ./make-base.sh | skiff import -c 'ENV PATH=/bin' -c 'CMD ["sh"]' - busybox
set -eu
busybox=${BUSYBOX:-/bin/busybox}
[ -x "$busybox" ] || { echo "$busybox is missing: apt-get install busybox-static" >&2; exit 1; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mkdir -p "$dir/bin" "$dir/etc" "$dir/root" "$dir/srv" "$dir/var"
mkdir -m 1777 "$dir/tmp"
cp "$busybox" "$dir/bin/busybox"
for applet in $("$busybox" --list); do
	[ "$applet" = busybox ] || ln -s busybox "$dir/bin/$applet"
done
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n' > "$dir/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' > "$dir/etc/group"
tar -C "$dir" --owner=0 --group=0 --numeric-owner -cf "${1:--}" .
