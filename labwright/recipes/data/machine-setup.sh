# Runs with sh inside the root of a machine, after rootfs-setup.sh.
set -eu

systemctl enable labwright-grow-root.service labwright-end-sessions.service
# It looks for LVM snapshots, and takes half of an emulated machine's boot to find none.
systemctl mask e2scrub_reap.service
# Left by the installation; the second names the disks of the computer that built this.
rm -f /etc/initramfs-tools/conf.d/resume /boot/grub/device.map /var/lib/dhcp/*
