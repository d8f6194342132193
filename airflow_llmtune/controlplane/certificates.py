"""A certificate authority and the server certificate it signs, for one control plane on loopback.

TLS is not there for secrecy between processes of one machine: kubectl sends no bearer token over plain HTTP.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFETIME = timedelta(days=365)
_CLOCK_SKEW = timedelta(hours=1)
_RENEWED_BEFORE_END = timedelta(days=30)


@dataclass(frozen=True)
class ServerCertificate:
    """All in PEM; the authority's own key is not kept, so nothing else can ever be signed by it."""

    authority: bytes
    certificate: bytes
    key: bytes


def issue(host: str) -> ServerCertificate:
    """A certificate for ``localhost``, 127.0.0.1, ::1 and the host; strict X.509 checks accept it."""
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority_name = _name("llmtune control plane authority")
    authority = _authority(authority_name, authority_key)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = (
        _builder(_name("llmtune control plane"), authority_name, key.public_key())
        .add_extension(x509.SubjectAlternativeName(_alternative_names(host)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    return ServerCertificate(_pem(authority), _pem(leaf), _key_pem(key))


def is_good_for(certificate: ServerCertificate, host: str, now: datetime) -> bool:
    """Whether it may serve this host for a while yet; raises ``ValueError`` when it is no certificate."""
    leaf = x509.load_pem_x509_certificate(certificate.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    covered = all(name in names for name in _alternative_names(host))
    return covered and leaf.not_valid_after_utc - now > _RENEWED_BEFORE_END


def _authority(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    return (
        _builder(name, name, key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SKEW)
        .not_valid_after(now + _LIFETIME)
    )


def _alternative_names(host: str) -> list[x509.GeneralName]:
    addresses = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    if host != "localhost":
        addresses.add(ipaddress.ip_address(host))
    return [x509.DNSName("localhost"), *(x509.IPAddress(address) for address in sorted(addresses, key=str))]


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
