"""Proofs over the ledger's tree, as RFC 6962 (sections 2.1.1 and 2.1.2) has them: that a row is in it, and that a later
tree only added to an earlier one.

They are made from the roots of complete subtrees, which ``subtree(height, index)`` gives: the one over the rows
``index * 2**height + 1`` to ``(index + 1) * 2**height``. A proof is a list of hashes; whoever checks one needs nothing
else but a root that they trust.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from treadle.core.merkle import EMPTY_ROOT, node_hash

Subtree = Callable[[int, int], bytes]


def root(size: int, subtree: Subtree) -> bytes:
    """The root over the first ``size`` leaves."""
    return _span(0, size, subtree) if size else EMPTY_ROOT


def inclusion(index: int, size: int, subtree: Subtree) -> list[bytes]:
    """The path from leaf ``index`` (from 0) to the root over ``size`` leaves, its sibling first."""
    if not 0 <= index < size:
        raise ValueError(f"no leaf {index} among {size}")
    low, high, path = 0, size, []
    while high - low > 1:
        middle = low + _left(high - low)
        if index < middle:
            path.append(_span(middle, high, subtree))
            high = middle
        else:
            path.append(_span(low, middle, subtree))
            low = middle
    return path[::-1]


def consistency(first: int, second: int, subtree: Subtree) -> list[bytes]:
    """What shows that the first ``first`` of ``second`` leaves are those of the earlier tree; empty when equal."""
    if not 0 < first <= second:
        raise ValueError(f"no tree of {first} leaves before one of {second}")
    low, high, path, whole = 0, second, [], True
    while first != high:
        middle = low + _left(high - low)
        if first <= middle:
            path.append(_span(middle, high, subtree))
            high = middle
        else:
            path.append(_span(low, middle, subtree))
            low, whole = middle, False
    if not whole:
        path.append(_span(low, high, subtree))
    return path[::-1]


def _left(count: int) -> int:
    """The largest power of two below ``count``."""
    return 1 << (count - 1).bit_length() - 1


def _span(low: int, high: int, subtree: Subtree) -> bytes:
    """The root over leaves ``low`` to ``high``, of which the largest subtrees stand to the left."""
    count = high - low
    if count & (count - 1) == 0:
        height = count.bit_length() - 1
        return subtree(height, low >> height)
    middle = low + _left(count)
    return node_hash(subtree((middle - low).bit_length() - 1, low // (middle - low)), _span(middle, high, subtree))


def included(leaf: bytes, index: int, size: int, path: Sequence[bytes], head: bytes) -> bool:
    """Whether a path leads from a leaf hash to the root ``head`` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    node, last = leaf, size - 1
    for sibling in path:
        if not last:
            return False
        if index & 1 or index == last:
            node = node_hash(sibling, node)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            node = node_hash(node, sibling)
        index, last = index >> 1, last >> 1
    return not last and node == head


def consistent(first: int, second: int, earlier: bytes, later: bytes, path: Sequence[bytes]) -> bool:
    """Whether the tree with root ``later`` only added to the one with root ``earlier`` (RFC 9162, section 2.1.4.2)."""
    if not 0 < first <= second:
        return False
    if first == second:
        return not path and earlier == later
    hashes = list(path) if first & (first - 1) else [earlier, *path]
    if not hashes:
        return False
    index, last = first - 1, second - 1
    while index & 1:
        index, last = index >> 1, last >> 1
    old = new = hashes[0]
    for sibling in hashes[1:]:
        if not last:
            return False
        if index & 1 or index == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        index, last = index >> 1, last >> 1
    return not last and old == earlier and new == later
