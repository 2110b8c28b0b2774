"""Proofs against a plain reading of RFC 6962, and over real ledgers with and without the tree's nodes."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.core import nodes, proof
from treadle.core.errors import Corrupt, UserError
from treadle.core.head import Head
from treadle.core.ledger import Fact
from treadle.core.merkle import Frontier, fold, leaf_hash
from treadle.core.workspace import Workspace

from .conftest import Place
from .test_merkle import LEAVES, naive_root

LEAF = [leaf_hash(str(number).encode()) for number in range(70)]


def tree(leaves: list[bytes]) -> proof.Subtree:
    return lambda height, index: fold(leaves[index << height : (index + 1) << height])


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH(m, D[n]) as the RFC writes it."""
    if len(leaves) == 1:
        return []
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_consistency(m: int, leaves: list[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF(m, D[n], b) as the RFC writes it."""
    if m == len(leaves):
        return [] if whole else [naive_root(leaves)]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    if m <= k:
        return [*naive_consistency(m, leaves[:k], whole=whole), naive_root(leaves[k:])]
    return [*naive_consistency(m - k, leaves[k:], whole=False), naive_root(leaves[:k])]


@pytest.fixture(scope="module")
def raw() -> list[bytes]:
    """``naive_root`` hashes the leaves itself."""
    return [str(number).encode() for number in range(70)]


def test_paths_are_those_of_the_rfc_and_lead_to_the_root(raw: list[bytes]) -> None:
    for size in range(1, 71):
        head = proof.root(size, tree(LEAF))
        assert head == naive_root(raw[:size])
        for index in range(size):
            path = proof.inclusion(index, size, tree(LEAF))
            assert path == naive_path(index, raw[:size])
            assert proof.included(LEAF[index], index, size, path, head)


def test_consistency_is_that_of_the_rfc(raw: list[bytes]) -> None:
    for second in range(1, 71):
        for first in range(1, second + 1):
            path = proof.consistency(first, second, tree(LEAF))
            assert path == naive_consistency(first, raw[:second])
            assert proof.consistent(first, second, naive_root(raw[:first]), naive_root(raw[:second]), path)


def test_published_vectors() -> None:
    """https://github.com/google/certificate-transparency, cpp/merkletree/merkle_tree_test.cc"""
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in LEAVES]
    assert [each.hex()[:8] for each in proof.inclusion(0, 8, tree(leaves))] == ["96a296d2", "5f083f0a", "6b47aaf2"]
    assert [each.hex()[:8] for each in proof.inclusion(5, 8, tree(leaves))] == ["bc1a0643", "ca854ea1", "d37ee418"]
    assert [each.hex()[:8] for each in proof.consistency(6, 8, tree(leaves))] == ["0ebc5d34", "ca854ea1", "d37ee418"]


@given(st.data())
def test_nothing_else_is_proven(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 70))
    index = data.draw(st.integers(0, size - 1))
    head, path = proof.root(size, tree(LEAF)), proof.inclusion(index, size, tree(LEAF))
    other = data.draw(st.integers(0, size))
    if other != index:
        assert not proof.included(LEAF[index], other, size, path, head)
    assert not proof.included(LEAF[(index + 1) % 70], index, size, path, head)
    assert not proof.included(LEAF[index], index, size, [*path, LEAF[0]], head)
    if path:
        place = data.draw(st.integers(0, len(path) - 1))
        assert not proof.included(LEAF[index], index, size, path[:place] + path[place + 1 :], head)
        assert not proof.included(LEAF[index], index, size, [*path[:place], LEAF[69], *path[place + 1 :]], head)
    first = data.draw(st.integers(1, size))
    earlier, path = proof.root(first, tree(LEAF)), proof.consistency(first, size, tree(LEAF))
    assert not proof.consistent(first, size, LEAF[0] + b"", head, [*path, head])
    if first < size:
        changed = [*LEAF[: first - 1], LEAF[first], *LEAF[first:]]
        assert not proof.consistent(first, size, proof.root(first, tree(changed)), head, path)
        assert not proof.consistent(first, size, earlier, proof.root(size, tree(changed)), path)


def test_subtrees_are_appended_as_leaves_are() -> None:
    one, other = Frontier(), Frontier()
    leaves = [leaf_hash(bytes([number])) for number in range(256)]
    for start in range(0, 256, 32):
        found = [one.append(leaf) for leaf in leaves[start : start + 32]][-1]
        assert other.append_root(fold(leaves[start : start + 32]), 5) == found[5:]
        assert (one.encode(), one.size) == (other.encode(), other.size)


def grow(workspace: Workspace, count: int, chance: random.Random) -> None:
    while count:
        some = min(count, chance.choice([1, 1, 2, 7, 40, 300]))
        workspace.ledger.append(*(Fact("note", {"number": chance.random()}) for _ in range(some)))
        count -= some


def stored(workspace: Workspace) -> list[tuple[object, ...]]:
    return workspace.database.query("SELECT level, position, hash FROM ledger_nodes ORDER BY level, position")


def test_every_row_of_a_ledger_is_proven(workspace: Workspace) -> None:
    chance, heads = random.Random(5), []
    for _ in range(6):
        grow(workspace, 230, chance)
        heads.append(workspace.ledger.head())
    assert len(stored(workspace)) == sum(heads[-1].size >> bits for bits in (5, 10))
    for head in heads:
        for seq in {1, 31, 32, 33, head.size, *(chance.randint(1, head.size) for _ in range(60))}:
            assert len(workspace.ledger.inclusion(seq, head)) <= 11
        for later in heads[heads.index(head) :]:
            workspace.ledger.consistency(head, later)
    with pytest.raises(UserError, match="has no row 99999"):
        workspace.ledger.inclusion(99_999, heads[-1])
    assert workspace.ledger.verify() == []


def test_without_nodes_the_proofs_are_the_same_and_an_earlier_format_gets_them(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root) as workspace:
        grow(workspace, 1500, random.Random(3))
        head, before = workspace.ledger.head(), stored(workspace)
        paths = [workspace.ledger.inclusion(seq, head) for seq in (1, 700, head.size)]
        with workspace.database.transaction() as cursor:
            cursor.execute("DELETE FROM ledger_nodes WHERE level = 2 OR position % 3 = 1")
        assert paths == [workspace.ledger.inclusion(seq, head) for seq in (1, 700, head.size)]
        assert {problem.ref.partition(":")[0] for problem in workspace.ledger.verify()} == {"ledger_nodes"}
        with workspace.database.transaction() as cursor:
            cursor.execute("DROP TABLE ledger_nodes")
            cursor.execute("UPDATE meta SET value = '1' WHERE name = 'format'")
    with Workspace(root) as workspace:
        assert stored(workspace) == before
        assert workspace.ledger.verify() == []


def test_a_ledger_that_was_cut_gets_no_nodes_and_is_still_named(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root) as workspace:
        grow(workspace, 100, random.Random(3))
        with workspace.database.transaction() as cursor:
            cursor.execute("DELETE FROM ledger_nodes")
            cursor.execute("UPDATE meta SET value = '1' WHERE name = 'format'")
            cursor.execute("DELETE FROM ledger WHERE seq = 50")
    with Workspace(root) as workspace:
        assert stored(workspace) == []
        assert ("ledger", "50") in {(problem.kind, problem.ref) for problem in workspace.ledger.verify()}
        with pytest.raises(Corrupt, match="row 50 of the ledger is missing"):
            workspace.ledger.inclusion(20, workspace.ledger.head())


def test_a_row_that_cannot_be_read_does_not_keep_a_ledger_without_nodes_from_being_opened(tmp_path: Path) -> None:
    root = tmp_path / "store"
    with Workspace(root) as workspace:
        grow(workspace, 100, random.Random(3))
        with workspace.database.transaction() as cursor:
            cursor.execute("DELETE FROM ledger_nodes")
            cursor.execute("UPDATE meta SET value = '1' WHERE name = 'format'")
            cursor.execute("UPDATE ledger SET body = x'ff', kind = CAST(x'ff' AS TEXT) WHERE seq = 50")
    with Workspace(root) as workspace:
        assert ("ledger", "50") in {(problem.kind, problem.ref) for problem in workspace.ledger.verify()}


def test_nothing_is_proven_from_changed_rows_or_nodes(workspace: Workspace, place: Place) -> None:
    grow(workspace, 200, random.Random(3))
    head = workspace.ledger.head()
    with place.raw() as raw:
        raw.execute("UPDATE ledger_nodes SET hash = ? WHERE level = 1 AND position = 1", ("ab" * 32,))
        with pytest.raises(Corrupt, match="does not lead to the signed head"):
            workspace.ledger.inclusion(5, head)
        assert [problem.ref for problem in workspace.ledger.verify()] == ["ledger_nodes:1.1"]
        raw.execute("UPDATE ledger SET body = '{}' WHERE seq = 170")
    with pytest.raises(Corrupt, match="does not lead to the signed head"):
        workspace.ledger.inclusion(170, head)


def test_a_head_of_another_history_is_not_consistent(workspace: Workspace) -> None:
    grow(workspace, 40, random.Random(3))
    head = workspace.ledger.head()
    for earlier in (Head(10, "ab" * 32, ""), Head(head.size + 1, head.root, ""), Head(head.size, "ab" * 32, "")):
        with pytest.raises(Corrupt, match="is not of this history"):
            workspace.ledger.consistency(earlier, head)


def test_nodes_by_size() -> None:
    assert [
        nodes.completed(size, Frontier(size - 1, [b"x" * 32] * (size - 1).bit_count()).append(b"y")) for size in (1, 31)
    ] == [[], []]
    made = nodes.completed(1024, [bytes([height]) * 32 for height in range(11)])
    assert [(level, position, text[:2]) for level, position, text in made] == [(1, 31, "05"), (2, 0, "0a")]
    assert made == nodes.completed(1024, [bytes([height]) * 32 for height in range(5, 11)], 5)
