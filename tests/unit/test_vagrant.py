"""What ``vagrant ssh-config`` says, read."""

from __future__ import annotations

from labwright.model import Machine
from labwright.tools.vagrant import parse_ssh_config

# As Vagrant 2.3.4 prints it for two machines.
SAID = """\
Host cp1
  HostName 127.0.0.1
  User vagrant
  Port 2222
  UserKnownHostsFile /dev/null
  StrictHostKeyChecking no
  PasswordAuthentication no
  IdentityFile "/home/some one/lab/.lab/lab/ssh/id_ed25519"
  IdentitiesOnly yes
  LogLevel FATAL
  PubkeyAcceptedKeyTypes +ssh-rsa
  HostKeyAlgorithms +ssh-rsa

Host w1
  HostName 172.17.0.3
  User root
  Port 22
  IdentityFile /home/u/.vagrant/machines/w1/virtualbox/private_key
  IdentityFile /home/u/.vagrant.d/insecure_private_key

"""


def test_every_machine_is_read() -> None:
    assert parse_ssh_config(SAID) == {
        "cp1": Machine(
            "cp1", "127.0.0.1", 2222, "vagrant", "/home/some one/lab/.lab/lab/ssh/id_ed25519"
        ),
        "w1": Machine(
            "w1", "172.17.0.3", 22, "root", "/home/u/.vagrant/machines/w1/virtualbox/private_key"
        ),
    }


def test_words_before_the_first_machine_do_no_harm() -> None:
    said = "==> vagrant: A new version of Vagrant is available: 2.4.9\n\n" + SAID
    assert set(parse_ssh_config(said)) == {"cp1", "w1"}


def test_nothing_is_no_machine() -> None:
    assert parse_ssh_config("") == {}
    assert parse_ssh_config("\n\n") == {}
