# -*- mode: ruby -*-
# For $VAGRANT_HOME/Vagrantfile, in the tests alone: lets a Vagrant drive a VirtualBox that came
# after it, by the newest driver it has. Its drivers 7_1 and 7_2 are empty heirs of 7_0
# (hashicorp/vagrant v2.4.9, plugins/providers/virtualbox/driver/version_7_2.rb).
VagrantPlugins::ProviderVirtualBox::Driver::Meta.prepend(Module.new do
  def read_version
    super.to_s.sub(/\A7\.[12]\./, "7.0.")
  end
end)
