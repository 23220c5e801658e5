"""The stack's certificate authority and certificates, and the key pair of service-account tokens."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from taskflow_local.state import write_private

_LIFETIME = dt.timedelta(days=3650)
_PREFIX = "taskflow-local-"
NODE_CLIENT = f"{_PREFIX}node-client"
"""Common name of the API server as a client of the node and of API servers behind it."""
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def create(folder: Path, now: dt.datetime) -> None:
    """Write the files once. The authority's own key is not kept.

    `ca.crt`; `server.crt` and `server.key` for every TLS server; `node-client.crt` and `node-client.key` for the API
    server as a client of the node and of API servers behind it; `sa.key` for service-account tokens.
    """
    marker = folder / "sa.key"
    if marker.exists():
        return
    authority = ec.generate_private_key(ec.SECP256R1())
    name = _name(f"{_PREFIX}ca")
    ca = (
        _certificate(name, name, authority, now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority.public_key()), critical=False)
        .sign(authority, hashes.SHA256())
    )
    write_private(folder / "ca.crt", _certificate_text(ca))
    for file, usage in (("server", ExtendedKeyUsageOID.SERVER_AUTH), ("node-client", ExtendedKeyUsageOID.CLIENT_AUTH)):
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _leaf(file, name, key, usage, now)
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
        certificate = leaf.add_extension(issuer, critical=False).sign(authority, hashes.SHA256())
        write_private(folder / f"{file}.key", _key_text(key))
        write_private(folder / f"{file}.crt", _certificate_text(certificate))
    # Written last: it marks the set as complete.
    write_private(marker, _key_text(rsa.generate_private_key(public_exponent=65537, key_size=2048)))


def _leaf(
    name: str, issuer: x509.Name, key: _Key, usage: x509.ObjectIdentifier, now: dt.datetime
) -> x509.CertificateBuilder:
    hosts: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    return (
        _certificate(_name(f"{_PREFIX}{name}"), issuer, key, now)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _certificate(subject: x509.Name, issuer: x509.Name, key: _Key, now: dt.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # A clock that is set back must not make a new stack unusable.
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + _LIFETIME)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        key_encipherment=False,
        content_commitment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_text(key: _Key) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _certificate_text(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
