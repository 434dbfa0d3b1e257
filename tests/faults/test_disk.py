"""A disk that is full from the n-th change on, and a small one for real: told in one line, nothing half-written."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from injection import FullDisk, Injector, ingest_config, reading, seen_at, spread


def starved(injector: Injector, late: Path, root: Path, ingested, step: int) -> str:
    """Ingest on a disk that is full from one step on, then on one with room again; return what the first run said."""
    old, before, after, _ = ingested
    shutil.copytree(old, root)
    with reading(root) as seen:
        failed = injector.run(ingest_config, late, root, FullDisk(step))
        between = seen_at(root).cubes
        again = injector.run(ingest_config, late, root)
    assert again.exitcode == 0, again.said
    assert seen.errors == []
    assert seen.cubes <= {before, after}
    assert seen_at(root).cubes == {after}
    assert not list(root.rglob(".staging*"))
    shutil.rmtree(root)
    if failed.exitcode == 0:
        assert between == {after}
        return ""
    assert failed.exitcode == 1, f"step {step}: {failed.said}"
    assert "\n" not in failed.said
    assert "No space left on device" in failed.said
    return failed.said


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_first_step_is_one_line_and_the_rerun_completes(
    injector: Injector, late: Path, tmp_path: Path, ingested
) -> None:
    *_, steps = ingested
    assert starved(injector, late, tmp_path / "early", ingested, spread(steps, 3)[0]).startswith("ExecutionError: ")


@pytest.mark.slow
def test_a_disk_that_is_full_at_one_of_many_steps(injector: Injector, late: Path, tmp_path: Path, ingested) -> None:
    *_, steps = ingested
    points = sorted({*spread(steps, 9), *range(steps - 20, steps + 1, 5)})
    said = [starved(injector, late, tmp_path / str(step), ingested, step) for step in points]
    assert {"ExecutionError", "CubeError"} <= {one.split(":", 1)[0] for one in said}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of half a MiB; skip where that is not permitted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if os.geteuid() != 0 or mounted.returncode != 0:
        pytest.skip("mounting a small disk takes root and the permission to mount")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_disk_that_is_really_full_is_one_line_and_completes_once_it_has_grown(
    injector: Injector, early: Path, small_disk: Path
) -> None:
    failed = injector.run(ingest_config, early, small_disk)
    assert failed.exitcode == 1, failed.said
    assert "\n" not in failed.said
    assert "No space left on device" in failed.said
    assert seen_at(small_disk).cubes == set()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = injector.run(ingest_config, early, small_disk)
    assert again.exitcode == 0, again.said
    assert len(seen_at(small_disk).cubes) == 1
