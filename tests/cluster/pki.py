"""The cluster's certificate authorities, certificates and kubeconfigs.

All of it is made anew with every cluster: nothing that one cluster signed is worth anything to the next.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.layout import API_PORT, API_SERVICE_IP, CLUSTER, CONTEXT, NODE, NODE_IP

LIFETIME = datetime.timedelta(days=5 * 365)
CLOCK_SKEW = datetime.timedelta(hours=1)

SERVER = f"https://{NODE_IP}:{API_PORT}"


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names: a Kubernetes user (`name`) in a group, or a server under its addresses."""

    name: str
    group: str = ""
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()

    @property
    def serves(self) -> bool:
        return bool(self.dns or self.addresses)


# certificate file -> whom it names, all signed by `ca`
IDENTITIES = {
    "kube-apiserver": Identity(
        "kube-apiserver",
        dns=(
            "localhost",
            NODE,
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ),
        addresses=(NODE_IP, API_SERVICE_IP, "127.0.0.1"),
    ),
    "kubelet-server": Identity(NODE, dns=(NODE,), addresses=(NODE_IP, "127.0.0.1")),
    "kube-apiserver-kubelet-client": Identity("kube-apiserver-kubelet-client", "system:masters"),
    "kube-controller-manager": Identity("system:kube-controller-manager"),
    "kube-scheduler": Identity("system:kube-scheduler"),
    "kube-proxy": Identity("system:kube-proxy"),
    "kubelet": Identity(f"system:node:{NODE}", "system:nodes"),
    "admin": Identity("truekeep-admin", "system:masters"),
}
KUBECONFIGS = ("kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet")


@dataclass(frozen=True)
class Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)


def make(pki: Path, config: Path, kubeconfig: Path, server: str = SERVER) -> str:
    """Write every key, certificate and kubeconfig; the sha256 of the authority that the kubeconfigs trust.

    `server`: the URL that the kubeconfigs name; its host must be one that IDENTITIES gives the API server.
    """
    pki.mkdir(parents=True, exist_ok=True)
    pki.chmod(0o700)
    ca = _authority(pki, "ca", "truekeep-cluster")
    for file, identity in IDENTITIES.items():
        _issue(pki, file, identity, ca)
    # The aggregation layer (metrics-server and its like) trusts an authority of its own: whoever it signs may
    # name any user in a header.
    front_proxy = _authority(pki, "front-proxy-ca", "truekeep-cluster-front-proxy")
    _issue(pki, "front-proxy-client", Identity("front-proxy-client"), front_proxy)

    signing_key = ec.generate_private_key(ec.SECP256R1())
    _write_private(pki / "service-accounts.key", _pem(signing_key))
    (pki / "service-accounts.pub").write_bytes(
        signing_key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    for name in KUBECONFIGS:
        _write_kubeconfig(config / f"{name}.kubeconfig", pki, name, ca, server)
    _write_kubeconfig(kubeconfig, pki, "admin", ca, server)
    return hashlib.sha256(ca.pem).hexdigest()


def of_server(pki: Path, file: str, address: str) -> None:
    """Write FILE.crt and FILE.key of a server at this address, and the authority that signed it, of its own."""
    pki.mkdir(parents=True, exist_ok=True)
    _issue(pki, file, Identity(file, addresses=(address,)), _authority(pki, f"{file}-ca", f"truekeep-{file}"))


def _authority(pki: Path, file: str, name: str) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _subject(Identity(name))
    certificate = (
        _builder(subject, subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    authority = Authority(key, certificate)
    (pki / f"{file}.crt").write_bytes(authority.pem)
    _write_private(pki / f"{file}.key", _pem(key))
    return authority


def _issue(pki: Path, file: str, identity: Identity, authority: Authority) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    usage = ExtendedKeyUsageOID.SERVER_AUTH if identity.serves else ExtendedKeyUsageOID.CLIENT_AUTH
    builder = (
        _builder(_subject(identity), authority.certificate.subject, key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if identity.serves:
        names: list[x509.GeneralName] = [x509.DNSName(name) for name in identity.dns]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in identity.addresses]
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    certificate = builder.sign(authority.key, hashes.SHA256())
    (pki / f"{file}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    _write_private(pki / f"{file}.key", _pem(key))


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + LIFETIME)
    )


def _subject(identity: Identity) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, identity.name)]
    if identity.group:
        attributes.insert(0, x509.NameAttribute(NameOID.ORGANIZATION_NAME, identity.group))
    return x509.Name(attributes)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_encipherment=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _write_kubeconfig(file: Path, pki: Path, identity: str, authority: Authority, server: str) -> None:
    def encoded(content: bytes) -> str:
        return base64.b64encode(content).decode()

    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [
            {
                "name": CLUSTER,
                "cluster": {"server": server, "certificate-authority-data": encoded(authority.pem)},
            }
        ],
        "users": [
            {
                "name": IDENTITIES[identity].name,
                "user": {
                    "client-certificate-data": encoded((pki / f"{identity}.crt").read_bytes()),
                    "client-key-data": encoded((pki / f"{identity}.key").read_bytes()),
                },
            }
        ],
        "contexts": [{"name": CONTEXT, "context": {"cluster": CLUSTER, "user": IDENTITIES[identity].name}}],
        "current-context": CONTEXT,
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_private(file, yaml.safe_dump(document, sort_keys=False).encode())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write_private(file: Path, content: bytes) -> None:
    file.touch(mode=0o600)
    file.write_bytes(content)
