# Runs with sh inside the root of an Ubuntu machine, after machine-setup.sh.
set -eu

# As on Debian: the server runs from the start, and is not begun by the first who asks.
systemctl disable ssh.socket
systemctl enable ssh.service
