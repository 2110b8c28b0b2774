"""The tree against a plain reading of RFC 6962, section 2.1, and its published test vectors."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core.merkle import EMPTY_ROOT, Frontier, leaf_hash

# https://github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc
LEAVES = [
    "",
    "00",
    "10",
    "2021",
    "3031",
    "40414243",
    "5051525354555657",
    "606162636465666768696a6b6c6d6e6f",
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH(D[n]) as the RFC writes it."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return sha256(b"\x00" + leaves[0]).digest()
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def test_published_vectors() -> None:
    frontier = Frontier()
    assert frontier.root() == EMPTY_ROOT == naive_root([])
    for leaf, root in zip(LEAVES, ROOTS, strict=True):
        frontier.append(leaf_hash(bytes.fromhex(leaf)))
        assert frontier.root().hex() == root


@given(st.lists(st.binary(max_size=20), max_size=70))
def test_every_size_equals_the_definition(leaves: list[bytes]) -> None:
    frontier = Frontier()
    for count, leaf in enumerate(leaves, 1):
        frontier.append(leaf_hash(leaf))
        assert frontier.root() == naive_root(leaves[:count])
        assert Frontier.decode(frontier.size, frontier.encode()).root() == frontier.root()


@pytest.mark.parametrize("size", [1, 2, 3, 255, 256, 257, 1000])
def test_a_frontier_keeps_one_root_per_complete_subtree(size: int) -> None:
    frontier = Frontier()
    for number in range(size):
        frontier.append(leaf_hash(str(number).encode()))
    assert len(frontier.roots) == size.bit_count()
