"""The curve of a loss in a line: its height, its length, and what is no number."""

from __future__ import annotations

import math

from treadle.stages.develop.curve import Curve


def test_it_falls_as_the_loss_does() -> None:
    curve = Curve()
    assert [curve.add(loss) for loss in (8.0, 4.0, 1.0)] == ["▁", "█▁", "█▄▁"]
    assert curve.add(8.0) == "█▄▁█"


def test_a_long_training_fits() -> None:
    curve, drawn = Curve(), list[str]()
    for step in range(10_000):
        drawn.append(curve.add(10_000.0 - step))
    assert max(map(len, drawn)) == 16
    assert len(drawn[-1]) >= 8
    assert (drawn[-1][0], drawn[-1][-1]) == ("█", "▁")
    assert sorted(drawn[-1], reverse=True) == list(drawn[-1])


def test_what_is_no_number_leaves_it_as_it_was() -> None:
    curve = Curve()
    assert curve.add(math.nan) == ""
    assert curve.add(2.0) == curve.add(math.inf) == "▁"
    assert curve.add(2.0) == "▁▁"
