"""Run benchmarks: `python -m benchmarks [name ...] [--quick] [--write docs/benchmarks.md]`.

Each benchmark has a process of its own whose numeric libraries use one thread, so that neither memory nor warm caches
of one enter another. With ``--write`` the table replaces what stands between the two marks of a Markdown file. `scale`,
which takes half an hour, `whole` and `machines`, which take minutes, run if named alone, and have marks of their own.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Row, environment, table

NAMES = (
    "gram_pass", "ipca", "walk_forward", "fama_macbeth", "cross_section", "penalised", "portfolio_risk", "risk_history",
)  # fmt: skip
_ALONE = ("scale", "whole", "machines")
"""Each runs only if it is the one that is named."""
_EITHER = " or ".join(_ALONE)
_ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMEXPR")}


def main() -> int:
    """Run what is asked for, print one table, and say which benchmarks failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names",
        nargs="*",
        metavar="name",
        help=f"which ones: {', '.join(NAMES)}; all if left out; or {_EITHER}",
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that everything runs")
    parser.add_argument("--write", type=Path, help="write the table into this Markdown file, between its marks")
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    alone = len(arguments.names) == 1 and arguments.names[0] in _ALONE
    unknown = [] if alone else sorted(set(arguments.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; choose among {', '.join(NAMES)}, or {_EITHER} alone")
    if arguments.rows:
        _run_here(arguments.names[0], arguments.rows, quick=arguments.quick)
        return 0
    rows: list[Row] = []
    failed = []
    for name in arguments.names or NAMES:
        found = _run_apart(name, quick=arguments.quick)
        rows += found
        if not found:
            failed.append(name)
        print(f"{name}\n{table(found)}\n", flush=True)
    command = " ".join(["python -m benchmarks", *arguments.names, *(["--quick"] if arguments.quick else [])])
    text = f"`{command}`, one thread\n\n{environment(row.peer for row in rows)}\n\n{table(rows)}"
    print(text)
    if arguments.write:
        _write(arguments.write, text, arguments.names[0] if alone else "benchmarks")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def _run_here(name: str, target: Path, *, quick: bool) -> None:
    module = importlib.import_module(f"benchmarks.{name}")
    target.write_text(json.dumps([row.as_dict() for row in module.run(quick=quick)]), encoding="utf-8")


def _run_apart(name: str, *, quick: bool) -> list[Row]:
    """Rows of one benchmark, run in a process of its own; none if it failed."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "benchmarks", name, "--rows", str(target), *(["--quick"] if quick else [])]
        done = subprocess.run(command, env={**os.environ, **_ONE_THREAD}, check=False)
        if done.returncode or not target.exists():
            return []
        return [Row(**row) for row in json.loads(target.read_text(encoding="utf-8"))]


def _write(target: Path, text: str, section: str) -> None:
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    page = target.read_text(encoding="utf-8") if target.exists() else f"# Benchmarks\n\n{begin}\n{end}\n"
    before, _, rest = page.partition(begin)
    _, mark, after = rest.partition(end)
    if not mark:
        sys.exit(f"{target} lacks the marks {begin} and {end}")
    target.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
