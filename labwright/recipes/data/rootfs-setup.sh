# Runs with sh inside the new root, after its packages are installed.
set -eu

useradd --create-home --shell /bin/bash --uid 1000 --user-group --password '*' vagrant
install -d -m 700 -o vagrant -g vagrant /home/vagrant/.ssh
install -m 600 -o vagrant -g vagrant /tmp/vagrant.pub /home/vagrant/.ssh/authorized_keys
rm /tmp/vagrant.pub

# Two machines with one identity would be one machine to an SSH client and to a DHCP server.
rm -f /etc/ssh/ssh_host_*
: > /etc/machine-id
rm -f /var/lib/dbus/machine-id

systemctl enable labwright-host-keys.service
systemctl set-default multi-user.target
# These wake up at boot and hold apt's and dpkg's locks while Ansible wants them.
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    e2scrub_all.timer

# What mmdebstrap was given or took from the host: its proxy, its mirror as a list that is on,
# its name and its name servers.
rm -f /etc/apt/apt.conf.d/99mmdebstrap /etc/apt/sources.list /etc/apt/sources.list.d/*.list
rm -f /etc/hostname /etc/resolv.conf
rm -rf /var/log/*.log /var/log/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old
