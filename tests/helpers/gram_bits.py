"""Whether Gram statistics are the same to the last bit."""

from __future__ import annotations

from models.statistics.gram import GramStatistics


def same_bits(one: GramStatistics, other: GramStatistics) -> None:
    assert one.chars == other.chars
    assert one.dates.equals(other.dates)
    for name in ("zz", "zr", "rr", "n", "weight"):
        assert getattr(one, name).tobytes() == getattr(other, name).tobytes(), name
    assert (one.caps is None) == (other.caps is None)
    assert one.caps is None or (one.caps == other.caps).all()
