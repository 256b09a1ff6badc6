"""Rules about names, ways out and ports."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

from labwright.doctor.facts import Checkup
from labwright.doctor.rule import ALL, Hit, Rule, rule

BOTH = ("linux", "darwin")
# Kubelet adds three of its own; kubelets before 1.28 and older libcs stop at six.
SEARCH_DOMAINS = 3


@rule(
    "net.strangers-answer",
    "something answers TLS for addresses that nobody has",
    "warning",
    ALL,
    "https://www.rfc-editor.org/rfc/rfc5737",
    systems=BOTH,
    pains=(21,),
)
def strangers_answer(c: Checkup) -> Hit | None:
    """A transparent proxy or a captive portal: a dead service then looks alive."""
    if not c.network.strangers:
        return None
    return Hit(
        "a transparent proxy or a captive portal answers in other servers' place",
        f"TLS was answered at {', '.join(c.network.strangers)}, which nobody can have",
        "log in to the network, or ask for a direct way out; until then a check that only connects "
        "proves nothing, and certificates of vendors may not be trusted: a bundle needs no network",
    )


@rule(
    "net.untrusted-vendors",
    "a vendor's certificate is not trusted here",
    "warning",
    ALL,
    "https://github.com/kubernetes/kubernetes/issues/43924",
    systems=BOTH,
)
def untrusted(c: Checkup) -> Hit | None:
    """A proxy that opens TLS shows its own certificate; nodes will not trust it."""
    if not c.network.untrusted:
        return None
    return Hit(
        "a proxy on the way shows its own certificate in the vendors' place",
        f"not trusted: {', '.join(c.network.untrusted)}",
        "name mirrors under mirrors: in lab.yaml, or use a bundle or the packages supply",
    )


@rule(
    "net.no-vendors",
    "the vendors of Kubernetes do not answer",
    "note",
    ALL,
    "https://kubernetes.io/docs/setup/production-environment/tools/kubeadm/install-kubeadm/",
    systems=BOTH,
    pains=(21,),
)
def no_vendors(c: Checkup) -> Hit | None:
    """Other supplies need none of them."""
    silent = [name for name, answer in c.host.upstream.items() if answer != "answers"]
    if not silent:
        return None
    return Hit(
        "the upstream supply cannot be had here",
        f"no answer from {', '.join(silent)}",
        "supply: packages or supply: bundle:PATH; supply: auto takes packages by itself",
    )


@rule(
    "net.proxy-variables",
    "a proxy is set, and the lab's addresses are not excepted",
    "warning",
    ALL,
    "https://github.com/redhat-nfvpe/kube-ansible/issues/122",
    systems=BOTH,
)
def proxy_variables(c: Checkup) -> Hit | None:
    """The host asks the lab's nodes and serves them: no proxy can stand between."""
    used = [name for name in c.network.proxies if name.lower() != "no_proxy"]
    if not used:
        return None
    wanted = c.wish.subnet or IPv4Network("192.168.56.0/24")
    excepted = ",".join(v for k, v in c.network.proxies.items() if k.lower() == "no_proxy")
    if any(_covers(entry.strip(), wanted) for entry in excepted.split(",")):
        return None
    return Hit(
        "programs on this host would ask the lab's nodes through a proxy",
        f"{', '.join(used)} set; NO_PROXY is {excepted or 'empty'}",
        f"export NO_PROXY=${{NO_PROXY:+$NO_PROXY,}}localhost,127.0.0.1,{wanted},.internal",
    )


def _covers(entry: str, wanted: IPv4Network) -> bool:
    if entry == "*":
        return True
    try:
        network = ip_network(entry, strict=False)
    except ValueError:
        return False
    return isinstance(network, IPv4Network) and wanted.subnet_of(network)


@rule(
    "net.port-taken",
    "a port that the lab serves on is taken",
    "error",
    ALL,
    "https://man7.org/linux/man-pages/man2/bind.2.html",
)
def port_taken(c: Checkup) -> Hit | None:
    """The nodes fetch packages and images from the host at one port."""
    taken = sorted(set(c.wish.ports) & set(c.network.listening))
    if not taken:
        return None
    return Hit(
        f"another program listens on port {', '.join(map(str, taken))} of all addresses",
        "/proc/net/tcp; the lab serves packages and images to its nodes there",
        f"find it: sudo ss -ltnp 'sport = :{taken[0]}', and stop it",
    )


@rule(
    "dns.none",
    "no name server that a node could ask",
    "warning",
    ALL,
    "https://github.com/coredns/coredns/issues/2087",
    pains=(10,),
)
def no_servers(c: Checkup) -> Hit | None:
    """Those on the host's own loopback mean something else inside a node."""
    if c.host.nameservers:
        return None
    loops = [server for server in c.network.resolvers if server.startswith("127.")]
    return Hit(
        "nodes will have no name server",
        f"resolv.conf names {', '.join(loops)}, which is the host itself"
        if loops
        else "resolv.conf names none",
        "name a server of your network in /etc/resolv.conf, or turn systemd-resolved on, whose "
        "own file lists those behind it",
    )


@rule(
    "dns.made-up-name",
    "names that cannot exist resolve",
    "warning",
    ALL,
    "https://www.rfc-editor.org/rfc/rfc6761#section-6.4",
    systems=BOTH,
    pains=(21,),
)
def made_up_name(c: Checkup) -> Hit | None:
    """Pods try search domains first: a wildcard there takes every name."""
    if not c.network.made_up:
        return None
    domains = ", ".join(c.network.search)
    return Hit(
        "this network's DNS answers for names that do not exist",
        f"a made-up name in .invalid resolved to {c.network.made_up}"
        + (f"; search domains: {domains}" if domains else ""),
        "take the search domain with the wildcard out of resolv.conf, or ask another name server",
    )


@rule(
    "dns.search-domains",
    "many search domains",
    "warning",
    ALL,
    "https://github.com/kubernetes/kubernetes/issues/9079",
)
def search_domains(c: Checkup) -> Hit | None:
    """A limit of six, of which Kubernetes takes three."""
    if len(c.network.search) <= SEARCH_DOMAINS:
        return None
    return Hit(
        "pods will lose some of this host's search domains",
        f"{len(c.network.search)} in resolv.conf: {', '.join(c.network.search)}",
        f"leave {SEARCH_DOMAINS} or fewer, or name hosts in full",
    )


@rule(
    "apt.dead-source",
    "a package source of Kubernetes that is gone",
    "warning",
    ALL,
    "https://github.com/kubernetes/release/issues/3484",
    pains=(6,),
)
def dead_source(c: Checkup) -> Hit | None:
    """Apt-get update fails on it, and so does every installation that `lab.up` asks for."""
    if not c.system.dead_sources:
        return None
    return Hit(
        "apt is set up with a source that no longer exists",
        f"apt.kubernetes.io or packages.cloud.google.com in {', '.join(c.system.dead_sources)}",
        f"sudo rm {' '.join(c.system.dead_sources)}, then sudo apt-get update",
    )


RULES: tuple[Rule, ...] = (
    strangers_answer,
    untrusted,
    no_vendors,
    proxy_variables,
    port_taken,
    no_servers,
    made_up_name,
    search_domains,
    dead_source,
)
