"""What NetworkPolicies allow, as the API's documentation has it: a small judge, because no plugin enforces them here.

A flow is allowed when the sender's egress and the receiver's ingress both allow it; a pod that no policy of a direction
selects is open in it, and several policies add up. An address of a pod counts for `ipBlock`, as in some plugins."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class End:
    """One end of a flow: a pod, where it has a namespace, or an address alone."""

    address: str
    namespace: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)


def allowed(policies: Sequence[Json], sender: End, receiver: End, port: int, protocol: str = "TCP") -> bool:
    """Whether these policies let a connection through."""
    out = _direction(policies, "Egress", sender, receiver, port, protocol)
    return out and _direction(policies, "Ingress", receiver, sender, port, protocol)


def _direction(policies: Sequence[Json], kind: str, mine: End, other: End, port: int, protocol: str) -> bool:
    if not mine.namespace:
        return True  # no policy selects what is no pod
    ours = [each for each in policies if _selects(each, mine) and kind in each["spec"]["policyTypes"]]
    rules = [rule for each in ours for rule in each["spec"].get(kind.lower()) or []]
    peers = "to" if kind == "Egress" else "from"
    return not ours or any(
        (not rule.get(peers) or any(_is_peer(peer, mine, other) for peer in rule[peers]))
        and (not rule.get("ports") or any(_is_port(each, port, protocol) for each in rule["ports"]))
        for rule in rules
    )


def _selects(policy: Json, pod: End) -> bool:
    return policy["metadata"]["namespace"] == pod.namespace and matches(policy["spec"]["podSelector"], pod.labels)


def _is_peer(peer: Json, mine: End, other: End) -> bool:
    if "ipBlock" in peer:
        address = ipaddress.ip_address(other.address)
        block = peer["ipBlock"]
        inside = [ipaddress.ip_network(each) for each in (block["cidr"], *block.get("except", []))]
        first, *rest = [address.version == each.version and address in each for each in inside]
        return first and not any(rest)
    if not other.namespace:
        return False
    if "namespaceSelector" in peer:
        there = matches(
            peer["namespaceSelector"], {"kubernetes.io/metadata.name": other.namespace, **other.namespace_labels}
        )
    else:
        there = mine.namespace == other.namespace
    return there and matches(peer.get("podSelector", {}), other.labels)


def _is_port(rule: Json, port: int, protocol: str) -> bool:
    return rule.get("protocol", "TCP") == protocol and rule["port"] <= port <= rule.get("endPort", rule["port"])


def matches(selector: Json, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for each in selector.get("matchExpressions", []):
        value, values = labels.get(each["key"]), each.get("values", [])
        holds = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[each["operator"]]
        if not holds:
            return False
    return True
