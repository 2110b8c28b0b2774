"""The project's keys: one to sign the ledger's heads, one under which people and things are named by keyed digests.

They lie under ``keys/`` in the store, readable by the owner alone, and die with it. Each person gets a key of their
own in the state, so that destroying that key makes every mention of them in the ledger unlinkable.
"""

from __future__ import annotations

import os
import secrets
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

from blake3 import blake3
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from treadle.core.digest import blake3_bytes, keyed_digest
from treadle.core.errors import Corrupt


class Keys:
    """The two secrets of a project, made on first use; with ``make`` False they must be there already."""

    def __init__(self, folder: Path, *, make: bool = True) -> None:
        for name in () if make else ("project.key", "ledger.key"):
            if not (folder / name).exists():
                raise Corrupt(
                    f"{folder / name} is missing, and nothing can be verified without it; put it back: "
                    "treadle restore FILE --keep-ledger"
                )
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._secret = _load_or_make(folder / "project.key", lambda: secrets.token_bytes(32))
        raw = _load_or_make(folder / "ledger.key", _new_signing_key)
        if len(self._secret) != 32 or len(raw) != 32:
            raise Corrupt(f"a key under {folder} has the wrong length; put it back from a backup")
        self._signing = Ed25519PrivateKey.from_private_bytes(raw)
        self._public = self._signing.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        self._row_key = blake3(self._secret, derive_key_context="treadle 1 ledger row").digest()

    @property
    def public(self) -> str:
        """The Ed25519 public key, hexadecimal."""
        return self._public

    @property
    def project(self) -> str:
        """The digest that tells this project from others, to whoever may know which one it is: of its public key."""
        return blake3_bytes(b"treadle 1 project\n" + self._public.encode())

    @property
    def public_pem(self) -> bytes:
        """The public key as ``openssl`` reads it."""
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(self._public))
        return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def keyed_person(self, person: str) -> str:
        """The keyed digest that stands for a person in everything that is stored. Of an address, and of a name of
        several words, neither case nor spaces matter; an id of one word stays as it is."""
        name = unicodedata.normalize("NFC", person.strip())
        if "@" in name:
            name = name.lower().removeprefix("mailto:")
        elif len(words := name.casefold().split()) > 1:
            name = " ".join(words)
        return self.keyed("subject", name)

    def sign(self, message: bytes) -> str:
        """An Ed25519 signature, hexadecimal."""
        return self._signing.sign(message).hex()

    def signed(self, message: bytes, signature: str) -> bool:
        """Whether the signature is this project's."""
        return verify_signature(self.public, message, signature)

    def mac(self, message: bytes) -> str:
        """A keyed BLAKE3 over a ledger row, which tells a row that was written here from one put in by hand."""
        return blake3(message, key=self._row_key).hexdigest()

    def macs(self, messages: Sequence[bytes]) -> list[str]:
        """``mac`` of each of many."""
        hasher = blake3(key=self._row_key)
        update, code, again = hasher.update, hasher.hexdigest, hasher.reset
        return [(update(message), code(), again())[1] for message in messages]

    def keyed(self, kind: str, value: str) -> str:
        """A name for a person, a document or an interaction that nobody without the key can link to it."""
        return keyed_digest(self._secret, kind, value)


def verify_signature(public: str, message: bytes, signature: str) -> bool:
    """Whether ``signature`` over ``message`` was made by the holder of ``public`` (both hexadecimal, lower case)."""
    try:
        raw = bytes.fromhex(signature)
        if raw.hex() != signature:  # the same bytes in another spelling
            return False
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(public)).verify(raw, message)
    except (InvalidSignature, ValueError, TypeError):
        return False
    return True


def _new_signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())


def _load_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    if not path.exists():
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(make())
            file.flush()
            os.fsync(descriptor)
        try:
            os.link(temporary, path)  # fails when another process was first; then theirs counts
        except FileExistsError:
            pass
        finally:
            temporary.unlink()
        _sync_folder(path.parent)  # a ledger without its keys could never be verified again
    return path.read_bytes()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
