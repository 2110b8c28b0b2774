"""The Merkle tree of RFC 6962 (SHA-256), grown one leaf at a time.

A frontier keeps one hash per complete subtree, so that appending costs O(log n) and the root is known at every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()


def leaf_hash(data: bytes) -> bytes:
    """Hash of a leaf, RFC 6962 section 2.1: SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash of an inner node, RFC 6962 section 2.1: SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


def fold(hashes: Sequence[bytes]) -> bytes:
    """The root over 2^k hashes of subtrees of one height."""
    return folded(hashes, len(hashes).bit_length() - 1)[0]


def folded(hashes: Sequence[bytes], levels: int) -> Sequence[bytes]:
    """The roots over each 2^levels of the hashes, of which there are so many or a multiple of that."""
    for _ in range(levels):
        pairs = iter(hashes)
        hashes = [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs, strict=True)]
    return hashes


class Frontier:
    """The roots of the complete subtrees, largest first; ``size`` leaves in all."""

    def __init__(self, size: int = 0, roots: list[bytes] | None = None) -> None:
        self.size = size
        self.roots = list(roots or [])

    def append(self, leaf: bytes) -> list[bytes]:
        """Add one leaf hash; the roots of the complete subtrees that end with it, by height: the leaf itself first."""
        node, count, completed = leaf, self.size, [leaf]
        while count & 1:
            node = node_hash(self.roots.pop(), node)
            completed.append(node)
            count >>= 1
        self.roots.append(node)
        self.size += 1
        return completed

    def append_root(self, node: bytes, height: int) -> list[bytes]:
        """Add the root over 2^height leaves where the size is a multiple of that; the roots that end with them, by
        height, from there on."""
        count, completed = self.size >> height, [node]
        while count & 1:
            node = node_hash(self.roots.pop(), node)
            completed.append(node)
            count >>= 1
        self.roots.append(node)
        self.size += 1 << height
        return completed

    def root(self) -> bytes:
        """The tree head over all leaves so far."""
        if not self.roots:
            return EMPTY_ROOT
        node = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            node = node_hash(left, node)
        return node

    def encode(self) -> str:
        """As text: hexadecimal roots joined by spaces."""
        return " ".join(root.hex() for root in self.roots)

    @classmethod
    def decode(cls, size: int, text: str) -> Frontier:
        """The reverse of ``encode``; ``ValueError`` when no tree of that size has such a frontier."""
        roots = [bytes.fromhex(part) for part in text.split()]
        if size < 0 or len(roots) != size.bit_count() or any(len(root) != 32 for root in roots):
            raise ValueError("not a frontier")
        return cls(size, roots)
