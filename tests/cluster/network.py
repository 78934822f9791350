"""The node's network: its address, the way of Services, pods' bridge, and taking all of it away again.

The node has an address of its own on a bridge link (not every kernel has the `dummy` link type). The Service range
is routed into that bridge: a packet that no rule rewrites dies on the machine instead of leaving it. Pods talk to
each other, to Services and to the node, and to nothing else: what runs here needs nothing from outside, and so can
neither depend on it nor disturb it.
"""

from __future__ import annotations

import ipaddress
import json
import re
import shutil
import socket
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from tests.cluster.commands import attempt, run, succeeds
from tests.cluster.errors import ClusterError
from tests.cluster.layout import API_PORT, ETCD_PEER_PORT, ETCD_PORT, NODE_IP, POD_RANGE, SERVICE_RANGE

NODE_LINK = "truekeep-node"
POD_LINK = "truekeep-pods"
POD_NETWORK = "truekeep-pods"
CHAIN = "TRUEKEEP-PODS"
OUR_CHAIN = re.compile(r"^(KUBE|CNI|TRUEKEEP)-")
IPTABLES = ("iptables", "ip6tables")
CNI_RESULTS = Path("/var/lib/cni")
SYSCTL = Path("/proc/sys")

# What the cluster sets: a value is a floor where it is a number of things, else it is the value.
WANTED_SYSCTLS = {
    "net/ipv4/ip_forward": "1",
    "net/bridge/bridge-nf-call-iptables": "1",  # else a Service's answer on the pods' bridge misses its NAT
    "fs/inotify/max_user_instances": "8192",  # the kubelet and each container's runtime take some
    "fs/inotify/max_user_watches": "524288",
}
# What kubelet, kube-proxy and the CNI plugins set by themselves.
TOUCHED_SYSCTLS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "net/ipv4/conf/all/route_localnet",
)


def require_free() -> None:
    """Raise when an address, a port or a chain that the cluster needs is taken by somebody else."""
    for route in _routes():
        for needed in (SERVICE_RANGE, POD_RANGE, f"{NODE_IP}/32"):
            if route.overlaps(ipaddress.ip_network(needed)):
                raise ClusterError(f"this machine already routes {route}, and the cluster needs {needed}")
    for address, port in (("127.0.0.1", ETCD_PORT), ("127.0.0.1", ETCD_PEER_PORT), ("", API_PORT), ("", 10250)):
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                raise ClusterError(f"port {port} is taken: `ss -ltnp 'sport = :{port}'` says by whom") from None
    for program in IPTABLES:
        if chains := sorted(_our_chains(_saved(program))):
            raise ClusterError(
                f"{program} already has {chains[0]} and {len(chains) - 1} more chains of another Kubernetes here"
            )


def current_sysctls() -> dict[str, str]:
    values = {}
    for name in (*WANTED_SYSCTLS, *TOUCHED_SYSCTLS):
        with suppress(OSError):
            values[name] = (SYSCTL / name).read_text().strip()
    return values


def load_modules() -> None:
    """What a distribution's kernel has as modules; where they are built in, there is nothing to load."""
    for module, sign in (("br_netfilter", SYSCTL / "net/bridge"), ("overlay", None)):
        present = sign.exists() if sign else "overlay" in Path("/proc/filesystems").read_text()
        if not present and not succeeds(["modprobe", module]):
            raise ClusterError(f"the kernel has no {module}, which a node needs")


def owner() -> str | None:
    """The state directory of the cluster whose network is on this machine, as `create` noted it on the link."""
    if not succeeds(["ip", "link", "show", NODE_LINK]):
        return None
    (link,) = _json(["ip", "-j", "link", "show", NODE_LINK])
    return str(link.get("ifalias", "")) or None


def create(owner: str) -> None:
    """Set up the node's network for the cluster of the state directory `owner`."""
    for name, wanted in WANTED_SYSCTLS.items():
        file = SYSCTL / name
        floor = name.startswith("fs/")
        if file.read_text().strip() != wanted and not (floor and int(file.read_text()) >= int(wanted)):
            file.write_text(wanted)
    run(["ip", "link", "add", NODE_LINK, "type", "bridge"])
    run(["ip", "link", "set", NODE_LINK, "alias", owner])
    run(["ip", "address", "add", f"{NODE_IP}/32", "dev", NODE_LINK])
    run(["ip", "link", "set", NODE_LINK, "up"])
    run(["ip", "route", "add", SERVICE_RANGE, "dev", NODE_LINK])
    rules = [
        "*filter",
        f":{CHAIN} - [0:0]",
        f"-A {CHAIN} -s {POD_RANGE} -d {POD_RANGE} -j ACCEPT",
        f"-A {CHAIN} -s {POD_RANGE} -j REJECT",
        f"-I FORWARD -j {CHAIN}",
        "COMMIT",
    ]
    run(["iptables-restore", "--noflush", "--wait"], stdin="\n".join(rules) + "\n")


def write_cni(directory: Path, state: Path) -> None:
    """The pods' network: a bridge, addresses from a local list, host ports. It enforces no NetworkPolicy."""
    document = {
        "cniVersion": "0.4.0",
        "name": POD_NETWORK,
        "plugins": [
            {
                "type": "bridge",
                "bridge": POD_LINK,
                "isGateway": True,
                "ipMasq": False,  # nothing of a pod's leaves the machine, so nothing needs the machine's address
                "hairpinMode": True,
                "ipam": {
                    "type": "host-local",
                    "dataDir": str(state / "addresses"),
                    "ranges": [[{"subnet": POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": True}},
        ],
    }
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "10-truekeep.conflist").write_text(json.dumps(document, indent=2) + "\n")


def remains() -> list[str]:
    """Links and chains of the cluster's that are still there."""
    links = [link for link in (NODE_LINK, POD_LINK) if succeeds(["ip", "link", "show", link])]
    chains = [f"{program}: {chain}" for program in IPTABLES for chain in sorted(_our_chains(_saved(program)))]
    return links + (chains if links or any(CHAIN in chain for chain in chains) else [])


def remove(sysctls: dict[str, str]) -> None:
    """Take away links, routes (they go with the links), rules and chains, and put the kernel's settings back."""
    # Our own chain is what tells that the other chains are ours as well, and not another Kubernetes's.
    if CHAIN in _our_chains(_saved("iptables")):
        for program in IPTABLES:
            if script := removal_script(_saved(program)):
                run([f"{program}-restore", "--noflush", "--wait"], stdin=script)
    for port in _ports_of(POD_LINK):
        attempt(["ip", "link", "delete", port])
    for link in (POD_LINK, NODE_LINK):
        attempt(["ip", "link", "delete", link])
    for name, value in sysctls.items():
        with suppress(OSError):
            if (SYSCTL / name).read_text().strip() != value:
                (SYSCTL / name).write_text(value)
    _remove_cni_results()


def _remove_cni_results() -> None:
    """What the CNI library keeps of each pod's network in a place of its own: NETWORK-CONTAINER-INTERFACE."""
    directory = CNI_RESULTS / "results"
    for result in directory.glob(f"{POD_NETWORK}-*"):
        container = result.name.removeprefix(f"{POD_NETWORK}-").partition("-")[0]
        for file in directory.glob(f"*-{container}-*"):
            file.unlink(missing_ok=True)
    for empty in (directory, CNI_RESULTS):
        with suppress(OSError):
            empty.rmdir()


def removal_script(saved: str) -> str:
    """What to feed to `iptables-restore --noflush` so that of iptables-save's rules ours are gone.

    Ours are the chains named KUBE-*, CNI-* and TRUEKEEP-*, and the rules elsewhere that jump into them.
    """
    script: list[str] = []
    for table, lines in _tables(saved).items():
        chains = [line[1:].split()[0] for line in lines if line.startswith(":")]
        ours = [chain for chain in chains if OUR_CHAIN.match(chain)]
        jumps = [
            line.replace("-A", "-D", 1)
            for line in lines
            if line.startswith("-A ") and not OUR_CHAIN.match(line.split()[1]) and _target(line) in ours
        ]
        if ours:
            script += [f"*{table}", *jumps, *(f"-F {chain}" for chain in ours), *(f"-X {chain}" for chain in ours)]
            script += ["COMMIT"]
    return "\n".join([*script, ""]) if script else ""


def _tables(saved: str) -> dict[str, list[str]]:
    tables: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in saved.splitlines():
        if line.startswith("*"):
            lines = tables.setdefault(line[1:].strip(), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return tables


def _target(rule: str) -> str:
    match = re.search(r" (?:-j|-g) (\S+)", rule)
    return match[1] if match else ""


def _our_chains(saved: str) -> set[str]:
    names = {line[1:].split()[0] for line in saved.splitlines() if line.startswith(":")}
    return {name for name in names if OUR_CHAIN.match(name)}


def _saved(program: str) -> str:
    save = f"{program}-save"
    return attempt([save]).stdout if shutil.which(save) else ""


def _routes() -> Iterable[ipaddress.IPv4Network]:
    for route in _json(["ip", "-j", "-4", "route", "show", "table", "all"]):
        if route.get("dst", "default") != "default" and route.get("type", "unicast") in ("unicast", "local"):
            yield ipaddress.IPv4Network(route["dst"], strict=False)


def _ports_of(bridge: str) -> list[str]:
    if not succeeds(["ip", "link", "show", bridge]):
        return []
    return [link["ifname"] for link in _json(["ip", "-j", "link", "show", "master", bridge]) if link]


def _json(argv: list[str]) -> list[dict[str, Any]]:
    parsed: list[dict[str, Any]] = json.loads(run(argv) or "[]")
    return parsed
