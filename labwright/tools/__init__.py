"""Everything that touches the outside world: processes, Vagrant, Ansible, files, the host."""
