"""A family of models is one class: its spec is its constructor, and what it lacks is said before anything is read."""

from __future__ import annotations

import inspect
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import Panel
from models.families.base import FactorModel
from models.families.registry import build, family, restore
from schemas import families
from schemas.errors import ConfigError
from schemas.families import kinds, model_spec, spec_class
from schemas.spec import RunSpec

OURS = [
    "attention_sdf", "autoencoder", "coskewness_pca", "cross_section", "factor_analysis", "fama_macbeth", "hybrid",
    "ipca", "kernel_ipca", "market", "mean_of_models", "pca", "penalised", "random_feature_sdf", "regressed_pca",
    "residual_network", "residual_pca", "residual_som", "risk_network", "rp_pca", "sdf_network", "time_series",
]  # fmt: skip
REQUIRED: dict[str, dict[str, Any]] = {
    **{kind: {"of": "pca"} for kind in ("hybrid", "residual_network", "residual_pca", "residual_som")},
    "mean_of_models": {"of": ("one", "other")},
}
RUN = {
    "universe": "us_test",
    "data": {"shape": "wide_prices", "origin": {"kind": "files", "paths": ["prices.csv"]}},
    "walk_forward": {"first": "2015-12-31"},
}
SOUND = '''
from __future__ import annotations
from typing import Annotated, ClassVar
from annotated_types import Ge, Le
from models.families.pca import PCA

class Found(PCA):
    """A family of another package.

    It serves a test.

    Parameters
    ----------
    n_factors : int
        Number of factors, of
        ``which`` there are few.
    depth : int, optional
        How deep. Default: as deep as it goes.
    """

    kind: ClassVar[str] = "found"
    STATISTICS: ClassVar[dict[str, str]] = {"dug": "how deep it went"}

    def __init__(self, n_factors: Annotated[int, Ge(1), Le(4)] = 2, depth: Annotated[int, Ge(0)] | None = None) -> None:
        super().__init__(n_factors)
        self.depth = depth
'''
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Give a function that installs a package with entry points and one module; what is known is found anew."""
    for name in ("family", "spec_class", "_points", "_adapter", "_of_kind"):
        monkeypatch.setattr(families, name, cache(getattr(families, name).__wrapped__))
    modules = set(sys.modules)

    def make(source: str = SOUND, package: str = "acme", entries: str = "found = {module}:Found") -> None:
        module = f"{package}_families"
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[factorcube.models]\n{entries.format(module=module)}\n")
        (tmp_path / f"{module}.py").write_text(source)
        monkeypatch.syspath_prepend(str(tmp_path))

    yield make
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def run(*models: dict[str, Any]) -> RunSpec:
    return RunSpec.parse(RUN | {"models": [*models]}, origin="run.yaml")


def test_the_families_of_this_repository_are_installed():
    assert kinds() == OURS
    assert [family(kind).kind for kind in OURS] == OURS


@pytest.mark.parametrize("kind", OURS)
def test_a_spec_is_the_constructor_of_its_class(kind):
    signature = inspect.signature(family(kind).__init__).parameters
    fields = {name: field for name, field in spec_class(kind).model_fields.items() if name not in ("kind", "name")}
    assert list(fields) == list(signature)[1:]
    required = REQUIRED.get(kind, {})
    assert {name for name, field in fields.items() if field.is_required()} == {*required}
    assert {name: field.default for name, field in fields.items() if name not in required} == {
        name: parameter.default for name, parameter in signature.items() if name not in {"self", *required}
    }
    model = build(model_spec({"kind": kind, **required}))
    assert type(model) is family(kind)
    assert model.get_params() == family(kind)(**required).get_params()


@pytest.mark.parametrize("kind", OURS)
def test_descriptions_are_plain_sentences_without_references(kind):
    for name, field in spec_class(kind).model_fields.items():
        text = field.description
        assert text[0].isupper() or text[0] == '"', name
        assert text.endswith("."), name
        assert not {word for word in ("`", "models.", "See ", " see ", "\n") if word in text}, name


def test_every_key_of_a_config_is_described():
    def undescribed(node: object, path: str) -> Iterator[str]:
        if isinstance(node, dict):
            for key, shown in node.get("properties", {}).items():
                if not shown.get("description"):
                    yield f"{path}.{key}"
            for key, inner in node.items():
                yield from undescribed(inner, f"{path}.{key}")
        elif isinstance(node, list):
            for inner in node:
                yield from undescribed(inner, path)

    schema = json.loads(json.dumps(RunSpec.model_json_schema()))
    assert list(undescribed(schema, "config")) == []
    choice = schema["properties"]["models"]["items"]
    assert sorted(choice["discriminator"]["mapping"]) == OURS
    assert len(choice["oneOf"]) == len(OURS)


def test_specs_compare_hash_and_travel_to_another_process_and_through_json():
    spec = run({"kind": "pca", "n_factors": "onatski"}, {"kind": "ipca", "observed": ["mkt"], "name": "mine"})
    again = pickle.loads(pickle.dumps(spec))  # noqa: S301  # made in the line
    assert again == spec
    assert [hash(model) for model in again.models] == [hash(model) for model in spec.models]
    assert RunSpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.models[0] != model_spec({"kind": "pca", "n_factors": "bai_ng"})
    program = (
        "import pickle, sys; models = pickle.load(sys.stdin.buffer);"
        "print([(m.kind, m.name, m.params()) for m in models])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=pickle.dumps(spec.models), capture_output=True, check=True
    )
    assert done.stdout.decode().strip() == str([(m.kind, m.name, m.params()) for m in spec.models])


def test_a_family_of_another_package_is_a_family(install):
    install()
    spec = run({"kind": "found", "depth": 3}, {"kind": "pca"})
    assert spec.models[0].params() == {"n_factors": 2, "depth": 3}
    model = build(spec.models[0])
    assert isinstance(model, FactorModel)
    assert model.get_params()["depth"] == 3
    fitted = build(model_spec({"kind": "pca", "n_factors": 2, "min_observations": 10}))
    fitted.fit(Panel.from_arrays(np.random.default_rng(0).standard_normal((40, 8))))
    again = restore(spec.models[1], fitted.state())
    assert again.kind == "pca"
    np.testing.assert_array_equal(again.premia_, fitted.premia_)
    shown = RunSpec.model_json_schema()["$defs"]["FoundSpec"]
    assert shown["description"] == "A family of another package."
    assert shown["properties"]["n_factors"]["description"] == "Number of factors, of which there are few."
    assert shown["properties"]["n_factors"]["maximum"] == 4
    for wrong, message in [
        ({"kind": "foumd"}, r"'models.0.kind': unknown kind 'foumd' \(did you mean 'found'\?\)"),
        ({"kind": "found", "dept": 3}, r"unknown key 'models.0.dept' \(did you mean 'depth'\?\)"),
        (
            {"kind": "found", "n_factors": 5},
            r"'models.0.n_factors': Input should be less than or equal to 4 .*5",
        ),
    ]:
        with pytest.raises(ConfigError, match=rf"^run\.yaml: {message}") as error:
            run(wrong)
        assert ";" not in str(error.value), "one mistake, one line"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('kind: ClassVar[str] = "found"', 'kind: ClassVar[str] = "other"'), "another kind than its entry point"),
        (("    depth : int, optional\n        How deep. Default: as deep as it goes.\n", ""), "'depth' has no descrip"),
        (("depth: Annotated[int, Ge(0)] | None = None", "depth=None"), "'depth' has no annotation"),
        (("depth: Annotated[int, Ge(0)] | None = None", "depth: Nowhere = None"), "cannot be resolved"),
        (("depth: Annotated[int, Ge(0)] | None = None", "*depth: int"), "'depth' cannot be given by name"),
        (
            ("depth: Annotated[int, Ge(0)] | None = None", "depth: object() = None"),
            "a config cannot give its parameters",
        ),
        (("depth", "digest"), "'digest' cannot be called so"),
        (("depth", "name"), "'name' cannot be called so"),
        (('"how deep it went"', '""'), "statistic 'dug' has no meaning"),
        (('"dug"', '"omega"'), "statistic 'omega' cannot be called so"),
        (('"dug"', '"factor"'), "statistic 'factor' cannot be called so"),
        (("(PCA)", "(FactorModel)"), "leaves abstract: .*factor_returns, fit, from_state, loadings, state"),
        (("(PCA)", ""), "does not follow the protocol of models.FactorModel: it lacks fit, pieces"),
        (("    def __init__", "    def statistics(self): return {}\n\n    def __init__"), r"overrides statistics\(\)"),
        (("class Found", "Found = 3\nclass Other"), "which is no class"),
        (("from annotated", "1 / 0\nfrom annotated"), "cannot be imported: ZeroDivisionError"),
        (("class Found", "class Other"), "cannot be imported: AttributeError"),
    ],
)
def test_a_family_that_does_not_keep_to_the_protocol_is_refused_by_name(install, change, message):
    source = SOUND.replace("import PCA\n", "import PCA\nfrom models.families.base import FactorModel\n")
    assert change[0] in source
    install(source.replace(*change))
    with pytest.raises(ConfigError, match=f"^model family 'found' of acme.*({message})") as error:
        run({"kind": "found"})
    assert "\n" not in str(error.value)


def test_a_kind_that_two_packages_claim_is_refused(install):
    install()
    install(package="vendor")
    with pytest.raises(ConfigError, match="'found' is claimed twice, by acme and vendor"):
        run({"kind": "pca"})


def test_a_manifest_of_a_family_that_is_not_installed_is_refused_in_a_line():
    with pytest.raises(ConfigError, match=r"^spec: 'model.kind': unknown kind 'gone'"):
        model_spec({"kind": "gone", "name": "gone"})
    with pytest.raises(ConfigError, match="no model of kind 'gone'"):
        family("gone")
