"""What a run says of its workers, without a worker."""

from __future__ import annotations

from pathlib import Path

from schemas.settings import Settings
from tasks.cluster import Cluster


def test_a_warning_that_every_refit_gives_is_said_once(tmp_path: Path) -> None:
    lines: list[str] = []
    cluster = Cluster(Settings(root=tmp_path), lines.append)
    said = [
        "  warning: Of 359 dates of pca2 88 lack the slope of a characteristic",
        "  warning: Of 423 dates of pca2 90 lack the slope of a characteristic",
        "  warning: Of 423 dates of pca3 90 lack the slope of a characteristic",
        "  pca2 as of 2016-06-30: 10 rounds",
        "  pca2 as of 2016-09-30: 10 rounds",
    ]
    for line in said:
        cluster.tell(line)
    assert lines == [said[0], *said[2:]]
