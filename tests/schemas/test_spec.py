"""Run specs and settings: every mistake gets one line that names it, and nothing that is read runs code."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.characteristics import CHARACTERISTICS
from schemas.checks import CHECKS
from schemas.errors import ConfigError
from schemas.settings import Settings, load_settings
from schemas.sources import LongPanel, LongPrices
from schemas.spec import LongShort, RunSpec
from storage import documents
from storage.configs import load_spec

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SPEC = {
    "universe": "us_test",
    "data": {"shape": "wide_prices", "origin": {"kind": "files", "paths": ["prices.csv"]}},
    "models": [{"kind": "market"}, {"kind": "pca", "n_factors": 3}],
    "walk_forward": {"first": "2015-12-31"},
}

FUND = {"kind": "fixed", "name": "fund", "weights": {"A": 1.0}}
BOOK = {"kind": "holdings", "name": "book", "rebalances": [{"as_of": "2015-12-31", "weights": {"A": 1.0}}]}


def changed(path: str, value: object) -> dict:
    spec = copy.deepcopy(SPEC)
    *parents, last = path.split(".")
    place = spec
    for part in parents:
        place = place[int(part)] if part.isdigit() else place.setdefault(part, {})
    key = int(last) if last.isdigit() else last
    if value is None:
        del place[key]
    else:
        place[key] = value
    return spec


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("walk_foward", {}, "unknown key 'walk_foward' (did you mean 'walk_forward'?)"),
        ("data.tikers", [], "unknown key 'data.tikers' (did you mean 'tickers'?)"),
        ("data.origin.path", "x", "unknown key 'data.origin.path' (did you mean 'paths'?)"),
        ("models.0.windw", 60, "unknown key 'models.0.windw' (did you mean 'window'?)"),
        ("panel.transfrom", "rank", "unknown key 'panel.transfrom' (did you mean 'transform'?)"),
        ("checks.overrides", {"x": {"severty": "warn"}}, "(did you mean 'severity'?)"),
        ("models.1.kind", "pcaa", "'models.1.kind': unknown kind 'pcaa' (did you mean 'pca'?)"),
        ("data.shape", "wide", "'data.shape': unknown shape 'wide'"),
        ("portfolios", [{"kind": "fixed", "name": "p", "weights": {"A": 1e308}}], "less than or equal to 10000000000"),
        ("data.shape", None, "key 'data.shape' is missing"),
        ("data.origin.kind", None, "key 'data.origin.kind' is missing (one of: duckdb, files, package, plugin, sql)"),
        ("universe", None, "key 'universe' is missing"),
        ("universe", "../escape", "'universe'"),
        ("models", [], "'models': give at least one"),
        ("models.1.n_factors", 0, "'models.1.n_factors': Input should be greater than or equal to 1 (given: 0)"),
        ("data.tickers", [True], "'data.tickers.0': expected text; put it in quotes (given: True)"),  # YAML's `ON`
        ("frequency", "weekly", "'frequency': Input should be 'daily' or 'monthly' (given: 'weekly')"),
        ("panel.market_portfolio", "caps", "panel.market_portfolio 'caps' is not one of the portfolios"),
        ("portfolios", [BOOK | {"benchmark": "fnd"}, FUND], "is not one of the portfolios; did you mean 'fund'?"),
        ("portfolios", [BOOK | {"benchmark": "book"}], "portfolio 'book' is its own `benchmark`"),
        ("models.1", {"kind": "market"}, "'models': the name market is given twice"),
        ("walk_forward.first", "2015-02-30", "'walk_forward.first'"),
    ],
)
def test_every_mistake_is_one_line_that_names_the_key_as_it_is_written(path, value, message):
    with pytest.raises(ConfigError) as error:
        RunSpec.parse(changed(path, value), origin="run.yaml")
    said = str(error.value)
    assert said.startswith("run.yaml: ")
    assert message in said
    assert "\n" not in said


def test_a_mistake_is_told_without_its_consequences():
    with pytest.raises(ConfigError) as error:  # pydantic adds that the list, less its bad item, is too short
        RunSpec.parse(changed("models", [{"kind": "pca", "n_factors": 0}]), origin="x")
    assert str(error.value) == "x: 'models.0.n_factors': Input should be greater than or equal to 1 (given: 0)"


def test_all_mistakes_are_told_at_once():
    spec = changed("frequency", "weekly") | {"curency": "USD"}
    with pytest.raises(ConfigError, match=r"frequency.*curency.*currency"):
        RunSpec.parse(spec, origin="run.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("universe: !!python/object/apply:os.mkdir [escaped]", "not valid YAML"),
        ("universe: !!python/name:os.system", "not valid YAML"),
        ("universe: [", "not valid YAML"),
        ("- universe", "expected a mapping"),
        ("", "expected a mapping"),
        ("universe: \x00", "not valid YAML"),
    ],
)
def test_yaml_runs_no_code_and_must_be_a_mapping(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_spec(path)
    assert str(path) in str(error.value)
    assert not (tmp_path / "escaped").exists()


def test_a_missing_or_binary_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: no such file"):
        load_spec(tmp_path / "nowhere.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(ConfigError, match=r"binary\.yaml, line 1: not valid YAML: it is not UTF-8 text"):
        load_spec(tmp_path / "binary.yaml")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_validates_and_survives_a_trip_through_json(path):
    spec = load_spec(path)
    again = RunSpec.parse(json.loads(spec.model_dump_json()), origin="json")
    assert again == spec
    assert again.digest() == spec.digest()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_examples_name_characteristics_and_checks_that_exist(path):
    spec = load_spec(path)
    brought = spec.data.characteristics if isinstance(spec.data, LongPanel) else tuple(CHARACTERISTICS)
    named = [portfolio.characteristic for portfolio in spec.portfolios if isinstance(portfolio, LongShort)]
    assert {*(spec.characteristics or ()), *(spec.panel.characteristics or ()), *named} <= set(brought)
    assert set(spec.checks.overrides) <= {check.name for check in CHECKS}


def test_the_snippets_of_the_examples_readme_validate():
    text = (EXAMPLES / "README.md").read_text()
    snippets = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    assert len(snippets) >= 3
    for snippet in snippets:
        RunSpec.parse(SPEC | yaml.safe_load(snippet), origin="README.md")
    for path in EXAMPLES.glob("*.yaml"):
        assert f"[{path.name}]({path.name})" in text, "the table lists every example"


def test_digest_depends_on_what_is_said_and_not_on_the_order_of_saying_it():
    spec = RunSpec.parse(SPEC, origin="a")
    backwards = RunSpec.parse(dict(reversed(SPEC.items())), origin="b")
    assert backwards.digest() == spec.digest()
    assert RunSpec.parse(changed("models.1.n_factors", 4), origin="c").digest() != spec.digest()


def test_a_benchmark_is_part_of_the_config_alone_and_one_without_is_as_it_was():
    bare = RunSpec.parse(changed("portfolios", [BOOK, FUND]), origin="a")
    beside = RunSpec.parse(changed("portfolios", [BOOK | {"benchmark": "fund"}, FUND]), origin="b")
    assert "benchmark" not in bare.model_dump_json()
    assert beside.benchmarks == {"book": "fund"}
    assert beside.digest() != bare.digest()
    assert beside.recipe == bare.recipe
    assert RunSpec.parse(beside.model_dump(mode="json"), origin="manifest") == beside


def test_relative_paths_are_taken_from_the_folder_of_the_config(tmp_path):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(SPEC))
    assert load_spec(tmp_path / "run.yaml").data.origin.paths == (tmp_path / "prices.csv",)
    home = RunSpec.parse(changed("data.origin.paths", ["~/prices.csv", "/abs.csv"]), origin="x").resolved(tmp_path)
    assert home.data.origin.paths == (Path.home() / "prices.csv", Path("/abs.csv"))


@given(st.text(max_size=70))
def test_a_name_that_passes_cannot_leave_its_folder(name):
    try:
        universe = RunSpec.parse(SPEC | {"universe": name}, origin="x").universe
    except ConfigError:
        return
    assert re.fullmatch(r"[a-z0-9][a-z0-9_-]*", universe)


def test_a_spec_cannot_be_changed():
    with pytest.raises(ValidationError):
        RunSpec.parse(SPEC, origin="x").universe = "other"


def test_json_schemas_can_be_printed():
    schema = json.loads(json.dumps(RunSpec.model_json_schema()))
    assert {"universe", "data", "models", "walk_forward"} <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    assert "root" in json.loads(json.dumps(Settings.model_json_schema()))["properties"]


def test_settings_come_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FACTORCUBE_ROOT", str(tmp_path / "store"))
    monkeypatch.setenv("FACTORCUBE_WORKERS", "3")
    settings = load_settings()
    assert (settings.root, settings.workers) == (tmp_path / "store", 3)
    assert settings.root.is_absolute()


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("FACTORCUBE_ROOTS", "x", "unknown setting FACTORCUBE_ROOTS (did you mean 'FACTORCUBE_ROOT'?)"),
        ("FACTORCUBE_WORKERS", "many", "FACTORCUBE_WORKERS"),
        ("FACTORCUBE_WORKERS", "0", "FACTORCUBE_WORKERS"),
        ("FACTORCUBE_DASK_SCHEDULER", "http://x", "FACTORCUBE_DASK_SCHEDULER"),
    ],
)
def test_a_wrong_setting_is_named(monkeypatch, variable, value, message):
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=r"^environment: ") as error:
        load_settings()
    assert message in str(error.value)


def test_the_database_url_is_never_shown(monkeypatch):
    monkeypatch.setenv("FACTORCUBE_SQL_URL", "postgresql://me:hunter2@db/market")
    settings = load_settings()
    shown = repr(settings) + str(settings) + settings.model_dump_json()
    assert "hunter2" not in shown
    assert settings.sql_url is not None
    assert "hunter2" in settings.sql_url.get_secret_value()
    monkeypatch.setenv("FACTORCUBE_WORKERS", "hunter2-is-not-a-number")
    with pytest.raises(ConfigError) as error:
        load_settings()
    assert "hunter2" not in str(error.value)


LAUGHS = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{depth}: &a{depth} [{', '.join([f'*a{depth - 1}'] * 8)}]\n" for depth in range(1, 12)
)
STRANGE = {
    "universe: a\nfirst: 2020-13-45\n": "line 2: not valid YAML: '2020-13-45' is no date",
    "universe: a\nfirst: !!timestamp soon\n": "line 2: not valid YAML: 'soon' is no date",
    "universe: !!int one\n": "line 1: not valid YAML: 'one' is no number",
    "universe: !!bool maybe\n": "line 1: not valid YAML: 'maybe' is no true or false",
    "universe: !!binary aGVsbG8=\n": "line 1: not valid YAML: the tag tag:yaml.org,2002:binary is not read here",
    "universe: !!map [1]\n": "line 1: not valid YAML: the tag tag:yaml.org,2002:map is not read here",
    "universe: a\nn: " + "9" * 5000: f"line 2: not valid YAML: '{'9' * 40}...' is no number",
    "universe: a\nn: 0x" + "f" * 30: f"line 2: not valid YAML: the number '0x{'f' * 30}' is too large",
    "universe: a\nn: " + "[" * 10**5: "line 2: not valid YAML: nested more than 32 deep",
    "".join(f"{' ' * depth}a:\n" for depth in range(500)): "line 33: not valid YAML: nested more than 32 deep",
    LAUGHS: "line 6: not valid YAML: more than 250,000 values",
    "universe: &a [*a]\n": "line 1: not valid YAML: '*a' is a part of itself",
    "universe: a\nweights: {NO: 0.5}\n": "line 2: not valid YAML: the key 'NO' is not text; put it in quotes",
    "universe: a\n? [b]\n: c\n": "line 2: not valid YAML: the key '[...]' is not text; put it in quotes",
    'universe: a\nn: "\x1b[2J"\n': "line 2: not valid YAML: control characters are not allowed",
    'universe: a\nn: "\\e[2J"\n': r"line 2: not valid YAML: '\x1b[2J' holds a control character",
}


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_strange_yaml_is_one_line_with_the_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as told:
        load_spec(path)
    assert str(told.value) == f"{path}, {STRANGE[text]}"


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes(b"universe: a\nname: \xe9t\xe9\n")
    with pytest.raises(ConfigError, match=r"config\.yaml, line 2: not valid YAML: it is not UTF-8 text"):
        load_spec(tmp_path / "config.yaml")


def test_keys_are_compared_once_each(tmp_path: Path) -> None:
    """Comparing each key of a mapping with each other took 40 s for 40,000 of them."""
    compared = 0

    class Key(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    mapping = yaml.compose("".join(f"k{number}: 0\n" for number in range(300)))
    for key, _ in mapping.value:
        key.value = Key(key.value)
    documents._StrictLoader(b"").flatten_mapping(mapping)
    assert compared < 300


def test_a_merge_may_give_a_key_again(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("a: {b: &b {<<: &x {k: 1}, k: 2}}\nc: {<<: *b, k: 3}\n")
    read = documents.read_document(tmp_path / "config.yaml")
    assert read == {"a": {"b": {"k": 2}}, "c": {"k": 3}}


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("universe: one\nuniverse: two\n")
    with pytest.raises(ConfigError, match=r"config\.yaml, line 2: .*'universe' is given twice"):
        load_spec(path)


def test_what_decides_how_bytes_are_understood_is_part_of_an_ingest_and_where_they_lie_is_not():
    source = {"origin": {"kind": "files", "paths": ["a.csv"]}}
    plain = LongPrices.parse(source, origin="").reading()
    assert LongPrices.parse({"origin": {"kind": "files", "paths": ["b/*.csv"]}}, origin="").reading() == plain
    for key, value in {"separator": ";", "encoding": "cp1252", "file_name_as": "name"}.items():
        assert LongPrices.parse({"origin": {**source["origin"], key: value}}, origin="").reading() != plain, key
    for key, value in {"decimal": ",", "date_format": "%d.%m.%Y", "missing_values": [-1]}.items():
        assert LongPrices.parse({**source, key: value}, origin="").reading() != plain, key


def test_a_calendar_without_weekends_is_refused_for_what_it_would_do_to_annual_numbers():
    assert RunSpec.parse(changed("calendar", "24/5"), origin="x").calendar == "24/5"
    with pytest.raises(ConfigError, match=r"'calendar': 365 sessions a year .*annualised by 252.*\(given: '24/7'\)"):
        RunSpec.parse(changed("calendar", "24/7"), origin="x")
