#!/bin/sh
# Makes a Debian 12 base image without a registry.
#
#   make-base.sh FILE.tar    write the root file system to a file
#   make-base.sh             import it as debian:12
#
# MIRROR is the Debian archive to use, http_proxy a proxy to reach it; neither
# stays in the image but for the mirror's line in its sources.list. CLI is the
# program that imports (skiff).
set -eu
command -v mmdebstrap > /dev/null || { echo "mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
make() {
	# shellcheck disable=SC2086 # no mirror is no argument
	mmdebstrap --quiet --variant=minbase --include=ca-certificates \
		--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
		--dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
		--aptopt='Acquire::Languages "none"' \
		bookworm "$1" ${MIRROR:-}
}
if [ $# -gt 0 ]; then
	make "$1"
	exit
fi
make - | ${CLI:-skiff} import -c 'CMD ["bash"]' - debian:12
