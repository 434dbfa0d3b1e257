"""Moving `latest` by hand, as a user does it: promote, roll back, pin, and what `latest` was."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from storing import STATE, manifest_of, version_data
from typer.testing import CliRunner, Result

from deploy.cli import app
from deploy.cli_versions import parse_moment
from schemas.contracts import GateDecision
from schemas.errors import ConfigError, ConflictError, CorruptionError, FactorcubeError, PublishError
from schemas.refs import VersionRef
from storage import published
from storage.layout import Layout
from tasks.promoting import find_version, lineage, promote_version, roll_back

DATES = ("2024-06-25", "2024-06-26", "2024-06-27", "2024-06-28")
REFUSED = GateDecision(passed=False, reasons=("out-of-sample total R2 -0.100, at least 0 is asked for",))


def publish(layout: Layout, end: str, tag: int = 0, *, model: str = "ipca", **changes: object) -> VersionRef:
    dataset = version_data(end=end, seed=tag)
    return published.publish(layout, dataset, manifest_of(dataset, tag=f"{tag:08x}", model=model, **changes), STATE)


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four versions of which none is promoted."""
    root = tmp_path_factory.mktemp("four")
    for number, end in enumerate(DATES):
        publish(Layout(root), end, number)
    return root


@pytest.fixture
def layout(four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "220")
    shutil.copytree(four, tmp_path, dirs_exist_ok=True)
    return Layout(tmp_path)


@pytest.fixture
def versions(layout: Layout) -> list[str]:
    return [ref.version for ref in published.list_versions(layout)]


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def said(*arguments: str) -> str:
    result = call(*arguments)
    assert result.exit_code == 0, result.exception
    return result.output


def refused(*arguments: str) -> str:
    """Return the one line that a user sees; `main` prints it and exits with 1."""
    result = call(*arguments)
    assert isinstance(result.exception, FactorcubeError), result.output
    message = str(result.exception)
    assert "\n" not in message
    return message


def champion(layout: Layout, model: str = "ipca") -> str | None:
    ref = published.latest(layout, "us", model)
    return ref.version if ref else None


def test_the_first_promotion_is_explicit_and_says_what_was_before(layout: Layout, versions: list[str]) -> None:
    assert champion(layout) is None
    assert "has no champion yet; promote one of: " in refused("show", "us/ipca/latest")
    shown = said("promote", f"us/ipca/{versions[1]}", "--reason", "looked at it")
    assert shown == f"us/ipca/{versions[1]} is latest now; before it was none\n"
    assert champion(layout) == versions[1]
    shown = said("promote", f"us/ipca/{versions[3]}")
    assert f"before it was {versions[1]}" in shown
    assert "nothing changed" in said("promote", f"us/ipca/{versions[3]}")
    assert "nothing changed" in said("promote", "us/ipca/latest")
    said("promote", f"us/ipca/{versions[0]}", "--reason", "also an earlier one")
    history = published.promotions(layout, "us", "ipca")
    assert [(one.previous, one.version) for one in history] == [
        (None, versions[1]), (versions[1], versions[3]), (versions[3], versions[0]),
    ]  # fmt: skip
    assert [one.reason for one in history] == ["looked at it", "promoted by hand", "also an earlier one"]


def test_a_universe_stands_for_all_its_models(layout: Layout, versions: list[str]) -> None:
    other = publish(layout, DATES[0], model="pca").version
    refused_one = publish(layout, DATES[0], 5, gate=REFUSED, model="market").version
    listed = [line["version"] for line in json.loads(said("show", "us", "--json"))]
    assert {f"us/ipca/{versions[0]}", f"us/pca/{other}", f"us/market/{refused_one}"} <= set(listed)
    made = {one: published.read_manifest(layout, find_version(layout, f"us/ipca/{one}")).created_at for one in versions}
    newest = max(versions, key=lambda one: made[one])
    result = call("promote", "us", "--reason", "both are right")
    assert f"us/ipca/{newest} is latest now" in result.output
    assert f"us/pca/{other} is latest now" in result.output
    assert f"us/market/{refused_one} did not pass the gate" in str(result.exception), "and the others are promoted"
    assert (champion(layout), champion(layout, "pca"), champion(layout, "market")) == (newest, other, None)
    assert "nothing is published as eu; there is us/ipca" in refused("show", "eu")


def test_rolling_back_twice_goes_further_back_not_forth(layout: Layout, versions: list[str]) -> None:
    for version in versions[:3]:
        said("promote", f"us/ipca/{version}")
    assert said("rollback", "us/ipca", "--reason", "bad beta") == (
        f"us/ipca/{versions[1]} is latest now; rolled back from {versions[2]}\n"
    )
    assert published.promotions(layout, "us", "ipca")[-1].reason == f"rolled back from {versions[2]}: bad beta"
    said("rollback", "us/ipca")
    assert champion(layout) == versions[0]
    assert f"{versions[0]} is the first champion" in refused("rollback", "us/ipca")
    said("promote", f"us/ipca/{versions[3]}")
    said("rollback", "us/ipca")
    assert champion(layout) == versions[0], "not to one that was rolled back"
    assert "there is no champion yet" in refused("rollback", f"us/{_published(layout, 'pca')}")


def _published(layout: Layout, model: str) -> str:
    publish(layout, DATES[0], model=model)
    return model


def test_rollback_to_a_removed_or_damaged_version_is_refused(layout: Layout, versions: list[str]) -> None:
    for version in versions[:3]:
        said("promote", f"us/ipca/{version}")
    damage(layout, versions[1])
    assert "does not match its checksum" in refused("rollback", "us/ipca")
    published.remove(layout, VersionRef(universe="us", model="ipca", version=versions[1]))
    message = refused("rollback", "us/ipca")
    assert f"{versions[1]}, the champion before {versions[2]}, was removed" in message
    assert versions[0] in message
    assert champion(layout) == versions[2]


def test_a_champion_that_vanished_is_replaced_by_promotion_or_rollback(layout: Layout, versions: list[str]) -> None:
    for version in versions[:3]:
        said("promote", f"us/ipca/{version}")
    shutil.rmtree(layout.home_folder("us", "ipca") / versions[2])
    assert "promote a version again" in refused("show", "us/ipca/latest")
    said("rollback", "us/ipca")
    assert champion(layout) == versions[1]
    shutil.rmtree(layout.home_folder("us", "ipca") / versions[1])
    said("promote", f"us/ipca/{versions[3]}")
    assert champion(layout) == versions[3]


def damage(layout: Layout, version: str) -> None:
    chunk = max((layout.home_folder("us", "ipca") / version / "loadings").glob("c.*"))
    content = bytearray(chunk.read_bytes())
    content[-1] ^= 1
    chunk.chmod(0o600)
    chunk.write_bytes(content)


def test_a_damaged_version_never_becomes_latest(layout: Layout, versions: list[str]) -> None:
    damage(layout, versions[3])
    for force in ([], ["--force", "--reason", "now"]):
        message = refused("promote", f"us/ipca/{versions[3]}", *force)
        assert "loadings/c" in message
        assert "does not match its checksum" in message
    assert "does not match its checksum" in refused("pin", f"us/ipca/{versions[3]}", "--reason", "filed")
    said("pin", f"us/ipca/{versions[2]}", "--reason", "filed")
    damage(layout, versions[2])
    with pytest.raises(CorruptionError):
        promote_version(layout, f"us/ipca/{versions[2]}", reason=None, force=False)
    assert champion(layout) is None
    assert list(published.pins(layout, "us", "ipca")) == [versions[2]]


def test_a_version_that_the_gate_refused_needs_force_and_a_reason(layout: Layout) -> None:
    bad = f"us/ipca/{publish(layout, DATES[0], 5, gate=REFUSED).version}"
    for arguments in ([], ["--force"], ["--reason", "because"], ["--force", "--reason", " "]):
        message = refused("promote", bad, *arguments)
        assert "did not pass the gate (out-of-sample total R2 -0.100" in message
        assert "--force" in message
        assert champion(layout) is None
    said("promote", bad, "--force", "--reason", "regulator asks")
    assert published.promotions(layout, "us", "ipca")[-1].reason == "against the gate: regulator asks"


WRONG = {
    "us": "does not name a version: write UNIVERSE/MODEL/VERSION",
    "us/ipca": "does not name a version: write UNIVERSE/MODEL/VERSION",
    "us/ipca/2024-06-28-00000003/x": "does not name a version",
    "us//2024-06-28-00000003": "does not name a version",
    "us/ipca/2024-06-28-ffffffff": "us/ipca has no version '2024-06-28-ffffffff'; it has 2024-06-25-00000000, ",
    "us/ipca/yesterday": "us/ipca has no version 'yesterday'",
    "us/icpa/2024-06-28-00000003": "nothing is published as us/icpa; there is us/ipca",
    "us/../2024-06-28-00000003": "is not a valid name",
    "us/ipca/../../x": "does not name a version",
}


def test_a_wrong_name_is_one_clear_line(layout: Layout, versions: list[str]) -> None:
    for name, message in WRONG.items():
        commands = [["promote", name], ["pin", name, "--reason", "x"], ["unpin", name], ["diff", name, name]]
        for command in commands[name in ("us", "us/ipca") :]:  # of these `promote` takes the newest versions
            assert message in refused(*command)
    assert "write UNIVERSE/MODEL, such as" in refused("rollback", "us/ipca/latest")


def test_many_versions_do_not_flood_the_message(layout: Layout) -> None:
    for number in range(4, 8):
        publish(layout, DATES[3], number)
    assert refused("promote", "us/ipca/x").endswith("2024-06-28-00000007 and 3 earlier")


def test_a_promotion_that_others_overtook_is_refused(
    layout: Layout, versions: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody promotes between this user's look at the champion and the swap."""
    said("promote", f"us/ipca/{versions[0]}")
    promote = published.promote

    def overtaken(*arguments: object, **options: object) -> VersionRef:
        promote(layout, "us", "ipca", faster, reason="faster")
        return promote(*arguments, **options)

    faster = versions[3]
    monkeypatch.setattr(published, "promote", overtaken)
    with pytest.raises(ConflictError, match="faster"):
        promote_version(layout, f"us/ipca/{versions[1]}", reason=None, force=False)
    assert champion(layout) == versions[3]
    faster = versions[2]
    with pytest.raises(ConflictError):
        roll_back(layout, "us/ipca", reason=None)
    assert champion(layout) == versions[2]


def test_pins_are_kept_with_their_reason(layout: Layout, versions: list[str]) -> None:
    name = f"us/ipca/{versions[2]}"
    assert call("pin", name).exit_code == 2, "a reason is asked for"
    assert "--reason is empty" in refused("pin", name, "--reason", " ")
    assert said("pin", name, "--reason", "audit [2024]") == f"{name} is pinned\n"
    assert published.pins(layout, "us", "ipca") == {versions[2]: "audit [2024]"}
    assert "audit [2024]" in said("show")
    assert "audit [2024]" in said("show", name)
    with pytest.raises(PublishError, match="pinned"):
        published.remove(layout, VersionRef(universe="us", model="ipca", version=versions[2]))
    assert said("unpin", name) == f"{name} is no longer pinned\n"
    assert "is not pinned" in refused("unpin", name)


def test_show_lists_marks_and_survives_a_damaged_manifest(layout: Layout, versions: list[str]) -> None:
    publish(layout, DATES[1], 9, model="pca", made_by="update", parent="2024-06-25-00000000")
    said("promote", f"us/ipca/{versions[2]}")
    manifest = layout.home_folder("us", "ipca") / versions[0] / "manifest.json"
    manifest.chmod(0o600)
    manifest.write_text("{}")
    shown = said("show")
    line = {name: next(text for text in shown.splitlines() if name in text) for name in versions}
    assert "damaged" in line[versions[0]]
    assert "yes" in line[versions[2]]
    assert "yes" not in line[versions[1]]
    assert "update" in next(text for text in shown.splitlines() if "us/pca" in text)
    assert "manifest.json" in shown
    listed = json.loads(said("show", "us/ipca", "--json"))
    assert [one["version"] for one in listed] == [f"us/ipca/{version}" for version in versions]
    assert [one["champion"] for one in listed] == [False, False, True, False]
    described = said("show", "us/ipca/latest")
    assert re.search(r"latest +yes", described)
    assert re.search(r"promoted +\d{4}-.* UTC by .* \(promoted by hand\)", described)
    assert json.loads(said("show", "us/ipca/latest", "--json"))["version"] == versions[2]


def test_show_as_of_says_what_latest_was(layout: Layout, versions: list[str]) -> None:
    before = datetime.now(UTC)
    for version in versions[:2]:
        said("promote", f"us/ipca/{version}", "--reason", "[bold]x")
    first, second = (one.promoted_at for one in published.promotions(layout, "us", "ipca"))
    between = first.isoformat()
    assert "none yet" in said("show", "us/ipca", "--as-of", (before - timedelta(days=1)).date().isoformat())
    shown = said("show", "--as-of", between)
    assert versions[0] in shown
    assert versions[1] not in shown
    assert "[bold]x" in shown
    found = json.loads(said("show", "us/ipca", "--as-of", between, "--json"))["us/ipca"]
    assert (found["version"], found["still"], found["there"]) == (versions[0], False, True)
    today = second.date().isoformat()
    assert versions[1] in said("show", "--as-of", today), "a date means its end"
    published.remove(layout, VersionRef(universe="us", model="ipca", version=versions[0]))
    assert "removed since" in said("show", "us/ipca", "--as-of", between)
    offset = first.astimezone(tz=None).isoformat()
    assert versions[0] in said("show", "--as-of", offset)
    assert "nothing is published as us/nix" in refused("show", "us/nix", "--as-of", today)
    assert "write UNIVERSE/MODEL" in refused("show", "us/ipca/latest", "--as-of", today)


def test_a_moment_is_a_date_or_has_a_zone() -> None:
    assert parse_moment("2024-06-28") == datetime(2024, 6, 28, 23, 59, 59, 999999, tzinfo=UTC)
    assert parse_moment("2024-06-28T18:00Z") == datetime(2024, 6, 28, 18, tzinfo=UTC)
    assert parse_moment("2024-03-31T02:30+02:00") == datetime(2024, 3, 31, 0, 30, tzinfo=UTC)
    for naive in ("2024-06-28T18:00", "2024-06-28 18:00:00"):
        with pytest.raises(ConfigError, match=r"has no time zone; write .*Z for UTC"):
            parse_moment(naive)
    for wrong in ("28.06.2024", "yesterday", "2024-02-30", ""):
        with pytest.raises(ConfigError, match="is neither a date"):
            parse_moment(wrong)


def test_lineage_of_a_long_history(layout: Layout, versions: list[str]) -> None:
    for place in (0, 1, 2, 1, 3, 0, 2):
        published.promote(layout, "us", "ipca", versions[place], reason="r")
    assert lineage(published.promotions(layout, "us", "ipca")) == [versions[0], versions[2]]
