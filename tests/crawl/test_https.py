"""A site over https, its certificate from an authority that only a company knows."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crawl.conftest import crawled, opened
from crawl.site import Site, page
from treadle.core.errors import UserError

PEM = serialization.Encoding.PEM


@dataclass
class Authority:
    """Signs certificates of hosts; ``path`` is what a client that trusts it is given."""

    folder: Path

    def __post_init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Authority of a company")])
        signed = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0), 30)
        self.path = self.folder / "authority.pem"
        self.path.write_bytes(signed.public_bytes(PEM))

    def server(self, host: str, days: int = 30) -> ssl.SSLContext:
        """What a server of that host has; ``days`` are left of it."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
        signed = self._signed(subject, key, x509.SubjectAlternativeName([x509.DNSName(host)]), days)
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = self.folder / f"{host}.pem"
        path.write_bytes(secret + signed.public_bytes(PEM))
        found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        found.load_cert_chain(path)
        return found

    def _signed(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, says: x509.ExtensionType, days: int
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        authority = isinstance(says, x509.BasicConstraints)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(60))
            .not_valid_after(now + timedelta(days))
            .add_extension(says, critical=authority)
            # What Python 3.13 and later ask of a chain besides.
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .add_extension(x509.KeyUsage(True, False, False, False, False, authority, authority, False, False), True)
            .sign(self._key, hashes.SHA256())
        )


@pytest.fixture
def authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Authority:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return Authority(tmp_path)


def over_https(site: Site) -> str:
    return site.url.replace("http://127.0.0.1", "https://localhost")


def test_a_site_whose_authority_is_named(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    pages = {"/": page("home", "/a", "/private"), "/a": page("a"), "/robots.txt": b"User-agent: *\nDisallow: /private"}
    with Site(pages=pages, tls=authority.server("localhost")) as site:
        url = over_https(site)
        assert list(crawled(tmp_path, url).documents) == [f"{url}/", f"{url}/a"]
        assert site.asked == ["/robots.txt", "/.well-known/tdmrep.json", "/", "/a"]
        site.forget()
        assert len(crawled(tmp_path, url).documents) == 2
        assert site.statuses == {304: 3, 404: 1}


@pytest.mark.parametrize(
    ("host", "days", "trusted", "words"),
    [
        ("localhost", 30, False, "unable to get local issuer certificate; SSL_CERT_FILE names a file with the"),
        ("localhost", -1, True, "certificate has expired), so"),
        ("other.example", 30, True, "certificate is not valid for 'localhost'), so"),
    ],
)
def test_a_certificate_that_does_not_hold_is_one_line(
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    days: int,
    trusted: bool,
    words: str,
) -> None:
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))
    with Site(pages={"/": page("home")}, tls=authority.server(host, days)) as site:
        found = crawled(tmp_path, over_https(site))
        assert (site.asked, found.documents) == ([], {})
        (reason,) = found.quarantined.values()
        assert "its certificate does not hold: " in reason
        assert words in reason
        assert "\n" not in reason


@pytest.mark.parametrize("content", [None, b"", b"no certificate"])
def test_authorities_that_are_none(
    authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    path = tmp_path / "company.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with pytest.raises(UserError, match=r"SSL_CERT_FILE: .*company\.pem is no file with certificates"):
        opened(tmp_path, "https://localhost:1/").refresh(lambda line: None)
