#!/bin/sh
# Makes a root of Debian sid with the real VirtualBox in it: chroot.sh FOLDER
#
# VirtualBox is in sid's contrib only. Its packages want the kernel's modules, which cannot be
# loaded here and are not needed for what is tested: a package that is empty stands in for them.
set -eu

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/modules/DEBIAN"
cat > "$work/modules/DEBIAN/control" <<'END'
Package: labwright-no-virtualbox-modules
Version: 1
Architecture: all
Maintainer: Labwright <labwright@localhost>
Provides: virtualbox-modules
Description: stands in for VirtualBox's kernel modules
END
dpkg-deb --build "$work/modules" "$work/modules.deb"

# sid's Release file is short-lived, and a test machine's clock need not be right.
mmdebstrap --mode=root --variant=minbase --components=main,contrib \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Check-Date "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
    --essential-hook="copy-in $work/modules.deb /tmp" \
    --essential-hook='chroot "$1" dpkg -i /tmp/modules.deb' \
    --include=systemd-standalone-sysusers,virtualbox,virtualbox-qt,xvfb \
    sid "$1"

# For the test's own folders, which are put there when it runs.
mkdir -p "$1/work"
