"""Damage: whatever happens to a stored file, readers get the truth or one line that names it, and verify lists it."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from damaging import damages, outcomes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from storing import ONE, TWO, cube_data, first_upsert, manifest_of, publish_one, second_upsert, version_data
from typer.testing import CliRunner

from deploy.cli import app
from schemas.errors import CorruptionError, CubeError, FactorcubeError, PublishError
from storage import published
from storage.cube import Cube
from storage.layout import Layout
from storage.work import WorkStore
from tasks.verifying import verify_stores

VERSION = f"{ONE}-00000000"


def files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def flip(path: Path, position: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2 if position is None else position] ^= 1
    path.write_bytes(content)


@pytest.fixture(scope="module")
def cube(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, xr.Dataset]:
    root = tmp_path_factory.mktemp("cube")
    first_upsert(root)
    second_upsert(root)
    return root, Cube.open(Layout(root), "us").open_dataset().load()


@pytest.mark.slow
def test_any_damage_to_any_file_of_a_cube_is_named_or_harmless(cube):
    root, whole = cube
    files = files_of(root / "cubes" / "us")
    assert {path.parent.name for path in files} >= {"manifests", "snapshots", "transactions", "branch.main"}
    met = outcomes(
        files,
        lambda: Cube.open(Layout(root), "us").open_dataset().load(),
        whole.identical,
        flips=3,
        names=("cube 'us'", str(root / "cubes" / "us")),
    )
    assert met["CubeError"] > 100


def test_a_panic_of_icechunk_is_damage_and_an_interrupt_is_not(tmp_path, monkeypatch):
    class PanicException(BaseException):  # as PyO3 raises it; on which flipped bits it does depends on random ids
        pass

    first_upsert(tmp_path)
    cube = Cube.open(Layout(tmp_path), "us")
    head = cube.head().id
    for raised, met in ((PanicException("Invalid node"), CubeError), (KeyboardInterrupt(), KeyboardInterrupt)):
        monkeypatch.setattr("storage.cube.metadata_seal", mock.Mock(side_effect=raised))
        with pytest.raises(met, match="snapshot .*PanicException: Invalid node" if met is CubeError else None):
            cube.open_dataset(head)


def test_a_cube_that_lost_its_branch_is_not_started_anew(cube):
    root, whole = cube
    branch = root / "cubes" / "us" / "refs" / "branch.main" / "ref.json"
    content = branch.read_bytes()
    branch.unlink()
    for opened in (Cube.open, Cube.open_or_create):
        with pytest.raises(CubeError, match=r"cubes/us: data without the branch 'main'; restore"):
            opened(Layout(root), "us")
    branch.write_bytes(content)
    assert Cube.open_or_create(Layout(root), "us").open_dataset().identical(whole)


def test_an_upsert_over_damaged_chunks_names_them_and_commits_nothing(tmp_path):
    first_upsert(tmp_path)
    cube = Cube.open(Layout(tmp_path), "us")
    cube.upsert(xr.concat([large(year) for year in range(3)], "date"), message="large", metadata={})
    head = cube.head()
    for chunk in files_of(tmp_path / "cubes" / "us" / "chunks"):
        flip(chunk)
    with pytest.raises(CubeError, match=rf"cube 'us', snapshot {head.id}: array '\w+', chunk [\d/]+ cannot be read"):
        second_upsert(tmp_path)
    assert Cube.open(Layout(tmp_path), "us").head() == head


def large(year: int) -> xr.Dataset:
    """Return data large enough that Icechunk keeps chunks in files of their own."""
    return cube_data(pd.bdate_range(f"{2025 + year}-01-01", periods=200), [f"T{n}" for n in range(20)], seed=year)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_to_any_file_of_a_version_is_named_or_harmless(tmp_path_factory, data):
    root = tmp_path_factory.getbasetemp() / "version"
    if not root.exists():
        publish_one(root)
    layout = Layout(root)
    ref = published.find(layout, "us", "ipca", VERSION)
    folder = root / "published" / "us" / "ipca" / VERSION
    path = data.draw(st.sampled_from(files_of(folder)))
    sound = path.read_bytes()
    how = data.draw(st.sampled_from(["flip", "cut", "remove"]))
    if how == "flip":
        flip(path, data.draw(st.integers(0, len(sound) - 1)))
    elif how == "cut":
        path.write_bytes(sound[: data.draw(st.integers(0, len(sound) - 1))])
    else:
        path.unlink()
    try:
        found = [str(error) for error in published.damages(layout, ref)]
        assert any(str(path) in line or str(path.parent) in line for line in found), (path, found)
        try:
            read = published.open_version(layout, ref).load()
        except CorruptionError as error:
            read, found = None, [str(error)]
        assert str(folder) in found[0]
        assert read is None or read.equals(version_data(end=ONE))
    finally:
        path.write_bytes(sound)


def test_a_chunk_that_goes_while_a_version_is_open_is_an_error_and_not_missing_values(tmp_path):
    publish_one(tmp_path)
    ref = published.find(Layout(tmp_path), "us", "ipca", VERSION)
    opened = published.open_version(Layout(tmp_path), ref)
    chunk = tmp_path / "published" / "us" / "ipca" / VERSION / "omega" / "c.0.0.0"
    for how, pattern in (
        ("removed", "is missing"),
        ("cut to 0 bytes", r"cannot be read"),
        ("flipped", "cannot be read"),
    ):
        for done in damages(chunk, 1):
            if how in done:
                with pytest.raises(CorruptionError, match=rf"{VERSION}: array 'omega', chunk 0/0/0 {pattern}"):
                    opened["omega"].copy(deep=False).values  # noqa: B018
                assert np.isfinite(opened["factor_returns"].copy(deep=False).values).any()


def test_a_work_dataset_that_is_damaged_says_which_folder_to_remove(tmp_path):
    store, whole = WorkStore(Layout(tmp_path)), cube_data(pd.bdate_range("2024-01-01", periods=40))
    store.put_dataset("panels", "a", whole)
    folder = tmp_path / "work" / "panels" / "a"
    met = outcomes(
        files_of(folder),
        lambda: store.open_dataset("panels", "a").load(),
        whole.identical,
        flips=2,
        names=(str(folder),),
    )
    assert met["CorruptionError"] > 50


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a root with a cube of two snapshots and two versions made from it."""
    root = tmp_path / "root"
    monkeypatch.setenv("FACTORCUBE_ROOT", str(root))
    first_upsert(root)
    second_upsert(root)
    snapshots = [one.id for one in Cube.open(Layout(root), "us").history()]
    for end, snapshot in zip((ONE, TWO), snapshots, strict=True):
        dataset = version_data(end=end)
        published.publish(Layout(root), dataset, manifest_of(dataset, snapshot_id=snapshot), {"x": np.zeros(3)})
    published.promote(Layout(root), "us", "ipca", f"{TWO}-0123abcd", reason="test")
    return root


def run(*arguments: str):
    return CliRunner().invoke(app, ["verify", *arguments])


def test_verify_finds_nothing_wrong_with_what_is_sound(filled):
    found = json.loads(run("--json").stdout)
    assert found == {"cubes": 1, "snapshots": 2, "versions": 2, "damages": []}
    done = run()
    assert done.exit_code == 0
    assert "read 2 version(s), 1 cube(s) with 2 snapshot(s): nothing damaged" in done.stdout


def test_verify_lists_all_that_is_damaged_and_exits_with_1(filled):
    versions = filled / "published" / "us" / "ipca"
    flip(versions / f"{ONE}-0123abcd" / "state.safetensors")
    (versions / f"{ONE}-0123abcd" / "qlike" / "c.0.0").unlink()
    (versions / f"{ONE}-0123abcd" / "planted.txt").write_text("x", encoding="utf-8")
    (versions / f"{ONE}-0123abcd" / "leads-out").symlink_to(filled.parent)
    flip(versions / f"{TWO}-0123abcd" / "manifest.json")
    oldest = Cube.open(Layout(filled), "us").history()[-1].id
    snapshot = filled / "cubes" / "us" / "snapshots" / oldest
    snapshot.write_bytes(snapshot.read_bytes()[:-1])  # not a flipped bit: some change nothing that is read
    done = run("--json")
    assert done.exit_code == 1
    problems = json.loads(done.stdout)["damages"]
    told = {(one["what"], re.sub(r".*/published/us/ipca/|;.*", "", one["problem"])) for one in problems}
    one, two = f"us/ipca/{ONE}-0123abcd", f"us/ipca/{TWO}-0123abcd"
    assert {
        (one, f"{ONE}-0123abcd/state.safetensors does not match its checksum"),
        (one, f"{ONE}-0123abcd/qlike/c.0.0 is missing or cannot be read"),
        (one, f"{ONE}-0123abcd/leads-out was not published with this version"),
        (one, f"{ONE}-0123abcd/planted.txt was not published with this version"),
        (two, f"{TWO}-0123abcd/manifest.json does not match manifest.sha256"),
    } <= told
    assert any(what == "cube us" and oldest in problem for what, problem in told)
    assert run("us/ipca/" + f"{TWO}-0123abcd").exit_code == 1


def test_verify_reads_every_snapshot_though_chunks_that_they_share_only_once(filled):
    cube, notes = Cube.open(Layout(filled), "us"), []
    assert not verify_stores(Layout(filled), "us", lambda label, *_: notes.append(label)).damages
    newest, oldest = (one.id for one in cube.history())
    assert {label for label in notes if oldest in label} >= {f"cube 'us', snapshot {oldest}, characteristics"}
    assert {label for label in notes if newest in label} >= {f"cube 'us', snapshot {newest}, returns"}
    assert f"cube 'us', snapshot {newest}, char" not in notes, "it did not change"


def test_verify_names_what_stands_in_the_place_of_something_else(filled):
    """A manifest of another snapshot, a real folder as `latest`, links: each is whole by itself."""
    home, outside = filled / "published" / "us" / "ipca", filled.parent / "outside"
    outside.mkdir()
    shutil.rmtree(home / "latest", ignore_errors=True)
    (home / "latest").unlink(missing_ok=True)
    shutil.copytree(home / f"{ONE}-0123abcd", home / "latest")
    for link in (home / f"{TWO}-ffffffff", filled / "published" / "eu", filled / "cubes" / "eu"):
        link.symlink_to(outside)
    sizes = sorted((filled / "cubes/us/manifests").iterdir(), key=lambda path: path.stat().st_size)
    sizes[-1].write_bytes(sizes[-2].read_bytes())
    told = {(one.what, one.problem) for one in verify_stores(Layout(filled)).damages}
    for what, problem in (
        ("cube us", f"{sizes[-1]} holds the content of another file; restore the cube from a copy"),
        ("us/ipca", f"{home}/latest is a folder and no link, so that readers of it never see another version; "),
        ("us/ipca", f"{home}/{TWO}-ffffffff is a link that leads to {outside}, and nothing here is read through it"),
        ("links", f"{filled}/published/eu is a link that leads to {outside}, "),
        ("links", f"{filled}/cubes/eu is a link that leads to {outside}, "),
    ):
        assert any(one == what and text.startswith(problem) for one, text in told), (what, told)


def test_what_cannot_be_ours_is_passed_over_and_what_may_be_and_cannot_be_read_is_named(filled, monkeypatch):
    """A file system leaves `lost+found` at its top, closed to others."""
    places = ("", "published", "published/us", "published/us/ipca", "cubes", "work", "work/fits", "reports")
    for place in places:
        (filled / place / "lost+found").mkdir(parents=True)
    closed = ["lost+found"]

    def guarded(act):
        def look(path="."):
            if any(name in str(path) for name in closed):
                raise PermissionError(13, "Permission denied", str(path))
            return act(path)

        return look

    monkeypatch.setattr(os, "scandir", guarded(os.scandir))
    monkeypatch.setattr(os, "listdir", guarded(os.listdir))
    for command in (["show"], ["catalog"], ["maintain"], ["maintain", "--apply"], ["verify"]):
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, (command, done.output, done.exception)
    closed.append("backup")
    (filled / "published" / "backup").mkdir()
    done = CliRunner().invoke(app, ["show"])
    assert isinstance(done.exception, FactorcubeError)
    assert f"{filled}/published/backup: cannot be read (Permission denied)" in str(done.exception)


def test_verify_says_what_is_lost_and_what_is_unknown(filled):
    published.pin(Layout(filled), "us", "ipca", f"{ONE}-0123abcd", reason="filed with the regulator")
    shutil.rmtree(filled / "published" / "us" / "ipca" / f"{ONE}-0123abcd")
    (damage,) = verify_stores(Layout(filled)).damages
    assert damage.problem == f"pinned version {ONE}-0123abcd does not exist; unpin it, or restore it from a copy"
    with pytest.raises(PublishError, match=r"no universe or model 'us/ipc'; did you mean 'us/ipca'"):
        verify_stores(Layout(filled), "us/ipc")
    shutil.rmtree(filled / "cubes")
    assert verify_stores(Layout(filled), "us/ipca").cubes == 0
