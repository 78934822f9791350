"""The command lines and configuration files of the node's daemons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster import cgroups
from tests.cluster.layout import (
    API_PORT,
    DNS_SERVICE_IP,
    ETCD_PEER_PORT,
    ETCD_PORT,
    NODE,
    NODE_IP,
    POD_RANGE,
    SERVICE_RANGE,
    Layout,
)

ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"
ETCD_PEER_URL = f"http://127.0.0.1:{ETCD_PEER_PORT}"

# Who changed what, for tests that ask whether a second reconcile wrote anything; reads, leases and the node's own
# reports would drown that.
AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "verbs": ["get", "list", "watch"]},
        {
            "level": "None",
            "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
        },
        {"level": "None", "userGroups": ["system:nodes"]},
        {
            "level": "None",
            "users": [
                "system:apiserver",
                "system:kube-controller-manager",
                "system:kube-scheduler",
                "system:kube-proxy",
            ],
        },
        {"level": "Metadata"},
    ],
}


def etcd(program: Path, layout: Layout) -> list[str]:
    return [
        str(program),
        "--name=truekeep",
        f"--data-dir={layout.etcd}",
        f"--listen-client-urls={ETCD_URL}",
        f"--advertise-client-urls={ETCD_URL}",
        f"--listen-peer-urls={ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={ETCD_PEER_URL}",
        f"--initial-cluster=truekeep={ETCD_PEER_URL}",
        "--unsafe-no-fsync",  # a cluster that is made anew after a crash has nothing to lose in one
        "--log-level=warn",
    ]


def kube_apiserver(program: Path, layout: Layout) -> list[str]:
    pki = layout.pki
    return [
        str(program),
        f"--etcd-servers={ETCD_URL}",
        f"--advertise-address={NODE_IP}",
        f"--bind-address={NODE_IP}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki / 'kube-apiserver.crt'}",
        f"--tls-private-key-file={pki / 'kube-apiserver.key'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--kubelet-client-certificate={pki / 'kube-apiserver-kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kube-apiserver-kubelet-client.key'}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        "--kubelet-preferred-address-types=InternalIP",  # so that no name needs to be in /etc/hosts
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy-client.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy-client.key'}",
        f"--audit-policy-file={layout.config / 'audit-policy.json'}",
        f"--audit-log-path={layout.logs / 'audit.json'}",
        "--audit-log-maxsize=32",
        "--audit-log-maxbackup=2",
        "--profiling=false",
    ]


def kube_controller_manager(program: Path, layout: Layout) -> list[str]:
    pki = layout.pki
    kubeconfig = layout.config / "kube-controller-manager.kubeconfig"
    return [
        str(program),
        f"--kubeconfig={kubeconfig}",
        "--secure-port=0",
        "--leader-elect=false",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        f"--flex-volume-plugin-dir={layout.kubelet / 'volume-plugins'}",
        "--profiling=false",
        # There is no other node to go to. An API server that was away for long, and watches that come back late,
        # would make the only one NotReady: no Service would have a pod, nor would names be resolved.
        "--node-monitor-grace-period=180s",
    ]


def kube_scheduler(program: Path, layout: Layout) -> list[str]:
    return [
        str(program),
        f"--kubeconfig={layout.config / 'kube-scheduler.kubeconfig'}",
        "--secure-port=0",
        "--leader-elect=false",
        "--profiling=false",
    ]


def containerd(layout: Layout) -> list[str]:
    return ["containerd", "--config", str(layout.config / "containerd.toml"), "--log-level", "warn"]


def kubelet(program: Path, layout: Layout) -> list[str]:
    return [
        str(program),
        f"--config={layout.config / 'kubelet.json'}",
        f"--kubeconfig={layout.config / 'kubelet.kubeconfig'}",
        f"--hostname-override={NODE}",
        f"--node-ip={NODE_IP}",
        f"--root-dir={layout.kubelet}",
        f"--cert-dir={layout.kubelet / 'pki'}",
    ]


def kube_proxy(program: Path, layout: Layout) -> list[str]:
    return [str(program), f"--config={layout.config / 'kube-proxy.json'}"]


def write_configs(layout: Layout) -> None:
    layout.config.mkdir(parents=True, exist_ok=True)
    for name, document in {
        "audit-policy": AUDIT_POLICY,
        "kubelet": kubelet_configuration(layout),
        "kube-proxy": kube_proxy_configuration(layout),
    }.items():
        (layout.config / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")


def kubelet_configuration(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "healthzPort": 0,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / "kubelet-server.crt"),
        "tlsPrivateKeyFile": str(layout.pki / "kubelet-server.key"),
        "containerRuntimeEndpoint": f"unix://{layout.containerd_socket}",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{cgroups.NAME}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "oomScoreAdj": 0,  # see containerd's restrict_oom_score_adj
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": "cluster.local",
        "podLogsDir": str(layout.root / "pod-logs"),
        "volumePluginDir": str(layout.kubelet / "volume-plugins"),
        "containerLogMaxSize": "10Mi",
        "containerLogMaxFiles": 3,
        "maxPods": 110,
        "serializeImagePulls": False,
        # Large disks with a small part free are common here. The default thresholds, which are percentages, would
        # evict pods and collect images that nobody can pull again.
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1Gi", "imagefs.available": "1Gi"},
        "evictionPressureTransitionPeriod": "30s",
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
    }


def kube_proxy_configuration(layout: Layout) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(layout.config / "kube-proxy.kubeconfig")},
        "hostnameOverride": NODE,
        "mode": "iptables",
        "clusterCIDR": POD_RANGE,
        "detectLocalMode": "ClusterCIDR",
        "healthzBindAddress": f"{NODE_IP}:10256",
        "metricsBindAddress": f"{NODE_IP}:10249",
        "nodePortAddresses": [f"{NODE_IP}/32"],
        "oomScoreAdj": 0,
        "iptables": {"minSyncPeriod": "100ms", "syncPeriod": "30s", "localhostNodePorts": False},
        # At 0 kube-proxy leaves the machine's connection tracking as it is.
        "conntrack": {
            "maxPerCore": 0,
            "min": 0,
            "tcpEstablishedTimeout": "0s",
            "tcpCloseWaitTimeout": "0s",
            "udpTimeout": "0s",
            "udpStreamTimeout": "0s",
        },
    }
