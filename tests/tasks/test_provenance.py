"""Keys change with every line that can change a number, and with no other: edits of a copy of the source say so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from models.families.registry import family
from schemas.errors import ConfigError
from schemas.families import kinds
from storage.codehash import code_of, modules_of
from storage.source_modules import HOME, PACKAGES
from tasks.provenance import key
from tasks.stages import Stage, family_code

OF_A_FAMILY = {Stage.FITS, Stage.VERSIONS, Stage.STATES, Stage.UPDATES}
FAMILIES = [kind for kind in kinds() if family_code(kind).startswith("models.")]
BEFORE_FITS = {Stage.READING, Stage.INGEST, Stage.DIGESTS, Stage.PANELS}
BUILT_ON = {"pca": {"coskewness_pca", "rp_pca"}, "factor_analysis": {"hybrid"}, "time_series": {"market"}}
"""Families that use the module of another one."""
Codes = dict[tuple[Stage, str], str]


@dataclass(frozen=True)
class Source:
    """Copies of the source, in a new folder for every edit, since a process reads a file once."""

    folder: Path
    numbers: Iterator[int]

    def codes(self, edits: dict[str, tuple[str, str]]) -> Codes:
        """Replace text in files, the end of a file if the text is empty; return the code of every stage and family."""
        if not edits:
            return _codes(HOME)
        home = self.folder / str(next(self.numbers))
        for package in (*PACKAGES, "deploy"):
            skipped = shutil.ignore_patterns("__pycache__")
            shutil.copytree(HOME / package, home / package, ignore=skipped, copy_function=os.symlink)
        for name, (before, after) in edits.items():
            path = home / name
            text = path.read_text(encoding="utf-8")
            assert before in text
            path.unlink()  # it was a link
            path.write_text(text.replace(before, after, 1) if before else text + after, encoding="utf-8")
        return _codes(home)

    def changed(self, *files: str) -> set[tuple[Stage, str]]:
        """Add a statement to files; return whose code is another one then."""
        before, after = self.codes({}), self.codes(dict.fromkeys(files, ("", "\nEDITED = True\n")))
        return {name for name in before if before[name] != after[name]}


def _codes(home: Path) -> Codes:
    found = {(stage, ""): stage.code(home=home) for stage in Stage if stage not in OF_A_FAMILY}
    return found | {
        (stage, kind): stage.code(family_code(kind), home=home) for stage in OF_A_FAMILY for kind in FAMILIES
    }


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return Source(tmp_path_factory.mktemp("source"), count())


def test_an_edit_that_can_change_no_number_changes_no_key(source: Source) -> None:
    edits = {
        "reporting/render.py": ("", "\nEDITED = True\n"),
        "reporting/style.css": ("", "\n.edited { color: red; }\n"),
        "deploy/cli.py": ("", "\nEDITED = True\n"),
        "flows/retrain.py": ("", "\nEDITED = True\n"),
        "tasks/artifacts.py": ("", "\nEDITED = True\n"),
        "tasks/assets.py": ("", "\nEDITED = True\n"),
        "schemas/errors.py": ("", "\nEDITED = True\n"),
        "models/blas.py": ('"""In which', '"""Edited: in which'),
        "models/panel/panel.py": ("", "\n# a comment\n\n\n"),
        "models/families/ipca/model.py": ('    """', '    """Edited. '),
        "models/families/base.py": ("from __future__ import annotations\n", "from __future__ import annotations\n\n\n"),
        "models/families/__init__.py": ("", "\nfrom models.families.pca import PCA\n\n__all__ = ['PCA']\n"),
    }
    assert source.codes(edits) == source.codes({})


def test_a_string_after_an_assignment_and_what_type_checkers_see_do_not_count(source: Source) -> None:
    typed = "\n\nif TYPE_CHECKING:\n    from models.families.ipca import IPCA\n"
    edits = {
        "models/statistics/products.py": ("", '\nEDITED = 1\n"""What it is."""\n'),
        "models/risk/specific.py": ("", f"\nTYPE_CHECKING = False{typed}"),
    }
    plain = {
        "models/statistics/products.py": ("", "\nEDITED = 1\n"),
        "models/risk/specific.py": ("", "\nTYPE_CHECKING = False\n"),
    }
    assert source.codes(edits) == source.codes(plain)
    assert source.codes(edits) != source.codes({})


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.slow] * (kind not in {*BUILT_ON, "market", "ipca"})) for kind in FAMILIES],
)
def test_an_edit_of_a_family_changes_its_fits_alone(kind: str, source: Source) -> None:
    edited = family(kind).__module__.replace(".", "/") + ".py"
    kinds = {kind} | BUILT_ON.get(kind, set())
    assert source.changed(edited) == {(stage, one) for stage in OF_A_FAMILY for one in kinds}


def test_an_edit_of_the_panel_changes_everything_behind_it(source: Source) -> None:
    changed = source.changed("models/panel/transforms.py")
    assert set(source.codes({})) - changed == {(Stage.READING, ""), (Stage.DIGESTS, ""), (Stage.ALLOCATIONS, "")}


def test_an_edit_of_risk_changes_versions_and_no_fits(source: Source) -> None:
    made = {(stage, kind) for stage in (Stage.VERSIONS, Stage.UPDATES) for kind in FAMILIES} | {(Stage.ROWS, "")}
    assert source.changed("models/risk/portfolio.py") == made | {(Stage.ALLOCATIONS, "")}
    made |= {(Stage.STATES, kind) for kind in FAMILIES}
    made |= {(Stage.FITS, "cross_section")}  # which weights stocks by their specific variance
    assert source.changed("models/risk/covariance.py") == made
    assert source.changed("models/risk/specific.py") == made


@pytest.mark.parametrize(
    ("edited", "stages"),
    [
        ("models/evaluation/forecasts.py", {Stage.EVALUATION, Stage.VERSIONS, Stage.UPDATES}),
        ("models/evaluation/gate.py", {Stage.VERSIONS, Stage.UPDATES}),
        ("models/statistics/gram.py", set(Stage) - {*BEFORE_FITS, Stage.EVALUATION, Stage.ALLOCATIONS}),
        ("models/allocation/optimised.py", {Stage.ALLOCATIONS}),
        ("models/quality/jumps.py", {Stage.INGEST}),
        ("models/characteristics/momentum.py", {Stage.INGEST}),
        ("storage/sources/cells.py", {Stage.READING, Stage.INGEST}),
        ("storage/arrays.py", set(Stage)),
        ("models/blas.py", set(Stage) - {Stage.READING}),  # whatever imports `models` runs it
        ("schemas/families.py", set()),
        ("storage/pointer.py", set()),
    ],
)
def test_what_else_changes_which_stage(edited: str, stages: set[Stage], source: Source) -> None:
    assert {stage for stage, _ in source.changed(edited)} == stages


def test_every_name_in_the_table_is_a_module() -> None:
    for stage in Stage:
        for name in stage.named:
            path = HOME.joinpath(*name.split("."))
            assert path.is_dir() or path.with_suffix(".py").is_file(), name


def test_no_stage_reaches_what_only_shows(source: Source) -> None:
    for stage in Stage:
        reached = {name.partition(".")[0] for name in stage.modules()}
        assert reached <= {"schemas", "storage", "models", "tasks"}


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Install a family from another package, with what an import can look like."""
    files = {
        "__init__.py": "from acme.family import Family\nfrom acme.other import Other\n\n__all__ = ['Family']\n",
        "family.py": "from .maths import sums\nimport acme.settings\n\n\nclass Family:\n    def fit(self):\n"
        "        from acme.late import late\n        return late(sums)\n",
        "maths/__init__.py": "from acme.maths.sums import sums\nfrom acme.maths.products import products\n",
        "maths/sums.py": "from models.panel import Panel\n\nsums = Panel\n",
        "maths/products.py": "products = 1\n",
        "late.py": "import numpy\n\nlate = numpy.sum\n",
        "settings/__init__.py": "from acme.settings.chosen import choose\nfrom acme.settings.more import x\n"
        "\nchoose()\n",
        "settings/chosen.py": "def choose(): ...\n",
        "settings/more.py": "x = 1\n",
        "other.py": "class Other: ...\n",
    }
    for name, text in files.items():
        (tmp_path / "acme" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "acme" / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "acme"


def test_the_code_of_another_package_is_followed_to_where_names_are_defined(plugin: Path) -> None:
    found = {name for name in modules_of("acme:Family") if name.startswith("acme") and not name.endswith("__init__")}
    assert found == {
        "acme.family",
        "acme.maths.sums",
        "acme.late",
        "acme.settings",
        "acme.settings.chosen",
        "acme.settings.more",
    }
    assert "models.panel.assembly" in modules_of("acme:Family")
    assert modules_of("acme.family:Family") == modules_of("acme:Family")


def test_a_root_without_source_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"the source of models\.families\.none cannot be read"):
        code_of("models.families.none")
    with pytest.raises(ConfigError, match="cannot be read"):
        code_of("numpy.linalg._umath_linalg")


def test_a_key_holds_the_code_and_every_part() -> None:
    assert key("a", data=1) == key("a", data=1)
    assert len({key("a", data=1), key("b", data=1), key("a", data=2), key("a", other=1)}) == 4
