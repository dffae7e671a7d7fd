"""Certificates: each cluster has an authority of its own and a certificate for each role.

Both ends of every connection prove who they are (mutual TLS 1.3). The role is stated in the
certificate, where it is looked up for each request. Keys are readable by their owner only.
"""

from __future__ import annotations

import datetime as dt
import ssl
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbol_core.distributed.state import write_private
from llmbol_core.errors import ClusterError

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 825
_RENEW_DAYS = 30


class Role(StrEnum):
    """What a certificate entitles its holder to be."""

    BROKER = "broker"
    NODE = "node"
    CLIENT = "client"
    INVITED = "invited-node"
    """May ask for a node's certificate, and for nothing else."""


OWN_ROLES = (Role.BROKER, Role.NODE, Role.CLIENT)
"""The roles for which a cluster makes certificates when it starts."""


def server_name(role: Role) -> str:
    """Return the host name in a role's certificate; it tells the role to those who connect."""
    return f"{role}.llmbol.internal"


def role_of(peercert: Mapping[str, Any] | None) -> Role | None:
    """Return the role in a peer's verified certificate, as ``ssl`` describes it."""
    value = _subject(peercert).get("commonName")
    return Role(value) if value in tuple(Role) else None


def invitation_of(peercert: Mapping[str, Any] | None) -> str | None:
    """Return the invitation that a peer's certificate came by, if it came by one."""
    return _subject(peercert).get("organizationalUnitName")


def _subject(peercert: Mapping[str, Any] | None) -> dict[str, str]:
    return {name: value for ((name, value), *_) in (peercert or {}).get("subject", ())}


class Certificates:
    """The certificates and keys in a directory, all PEM files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = directory / "authority.pem"

    def certificate(self, role: Role) -> Path:
        """Return the path of a role's certificate."""
        return self.directory / f"{role}.pem"

    def key(self, role: Role) -> Path:
        """Return the path of a role's private key."""
        return self.directory / f"{role}-key.pem"

    def ensure(self) -> None:
        """Make an authority and certificates, unless the existing ones are good for a while."""
        if not self._good():
            issue(self.directory)

    def server_context(self, role: Role) -> ssl.SSLContext:
        """Return how to accept connections from holders of this cluster's certificates."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        return self._prepare(context, role)

    def client_context(self, role: Role) -> ssl.SSLContext:
        """Return how to connect; the peer must carry the host name that it is asked for."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = True
        return self._prepare(context, role)

    def _prepare(self, context: ssl.SSLContext, role: Role) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_verify_locations(self.authority)
            context.load_cert_chain(self.certificate(role), self.key(role))
        except (OSError, ssl.SSLError) as error:
            why = error.strerror or str(error)
            raise ClusterError(
                f"{self.directory}: no usable certificate for the role {role}: {why.lower()}"
            ) from error
        return context

    def has_expired(self, role: Role) -> bool:
        """Return whether a role's certificate is out of date."""
        from cryptography import x509

        certificate = x509.load_pem_x509_certificate(self.certificate(role).read_bytes())
        return certificate.not_valid_after_utc <= dt.datetime.now(dt.UTC)

    def _good(self) -> bool:
        from cryptography import x509

        soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=_RENEW_DAYS)
        paths = [self.authority, *(self.certificate(role) for role in OWN_ROLES)]
        try:
            certificates = [x509.load_pem_x509_certificate(path.read_bytes()) for path in paths]
        except (OSError, ValueError):
            return False
        keys = all(self.key(role).is_file() for role in OWN_ROLES)
        return keys and all(one.not_valid_after_utc > soon for one in certificates)


def issue(directory: Path) -> Certificates:
    """Make a new authority and a certificate for each role; older ones become worthless.

    The authority's key is kept beside them, so that nodes can be invited later.
    """
    from cryptography.hazmat.primitives.asymmetric import ec

    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    certificates = Certificates(directory)
    authority_key = ec.generate_private_key(ec.SECP256R1())
    authority = _authority(authority_key)
    for role in OWN_ROLES:
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(certificates.key(role), _key_bytes(key))
        subject = _name(role)
        leaf = _leaf(role, subject, key, authority, authority_key, CERTIFICATE_DAYS * 86400)
        write_private(certificates.certificate(role), _pem(leaf))
    write_private(directory / "authority-key.pem", _key_bytes(authority_key))
    write_private(certificates.authority, _pem(authority))
    return certificates


def sign(
    certificates: Certificates, role: Role, invitation: str, seconds: float
) -> tuple[str, str]:
    """Return a certificate for somebody invited, and its key, as PEM; good for some seconds.

    Raises ClusterError if the authority's own key is missing or unusable.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    directory = certificates.directory
    try:
        authority = x509.load_pem_x509_certificate(certificates.authority.read_bytes())
        authority_key = load_pem_private_key((directory / "authority-key.pem").read_bytes(), None)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise ClusterError(f"{directory}: no authority to invite with: {why.lower()}") from error
    assert isinstance(authority_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = _leaf(role, _name(role, invitation), key, authority, authority_key, seconds)
    return _pem(leaf).decode(), _key_bytes(key).decode()


def _authority(key: EllipticCurvePrivateKey) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    name = _name("llmbol cluster authority")
    usage = dict.fromkeys(
        ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment",
         "key_agreement", "encipher_only", "decipher_only"), False,
    )  # fmt: skip
    public = key.public_key()
    return (
        _builder(name, name, key, AUTHORITY_DAYS * 86400)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _leaf(
    role: Role,
    subject: x509.Name,
    key: EllipticCurvePrivateKey,
    authority: x509.Certificate,
    authority_key: EllipticCurvePrivateKey,
    seconds: float,
) -> x509.Certificate:
    """Return a role's certificate; clients cannot be servers."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID

    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role in (Role.BROKER, Role.NODE):
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    issuer = authority_key.public_key()
    return (
        _builder(subject, authority.subject, key, seconds)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(server_name(role))]), critical=False
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer), critical=False)
        .sign(authority_key, hashes.SHA256())
    )


def _builder(
    subject: x509.Name, issuer: x509.Name, key: EllipticCurvePrivateKey, seconds: float
) -> x509.CertificateBuilder:
    """Begin a certificate; it is valid from a few minutes ago, as clocks differ."""
    from cryptography import x509

    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(seconds=seconds))
    )


def _name(text: str, unit: str | None = None) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    names = {NameOID.COMMON_NAME: str(text)}
    if unit is not None:
        names[NameOID.ORGANIZATIONAL_UNIT_NAME] = unit
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in names.items()])


def _pem(certificate: x509.Certificate) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM)


def _key_bytes(key: EllipticCurvePrivateKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
