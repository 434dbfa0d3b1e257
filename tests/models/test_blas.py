"""The last bits: products in a fresh process do not depend on where memory lies, and a setting of the user is kept."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from models.blas import MKL_BRANCH, MKL_VARIABLE, arithmetic, fix_order_of_sums, sums_are_reproducible

MULTIPLY = """
import os
import models  # before the first product of this process
import torch

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
most = 0
for width, length in ((21, 509), (7, 505), (5, 37), (30, 200)):
    for dtype in (torch.float64, torch.float32):
        values = torch.randn(width * length, dtype=dtype, generator=generator)
        room, squares, vectors = torch.empty(width * length + 16, dtype=dtype), set(), set()
        for shift in range(16):
            moved = room[shift : shift + width * length].copy_(values).view(width, length)
            squares.add(torch.mm(moved, moved.T).numpy().tobytes())
            vectors.add(torch.mv(moved, moved[0].clone()).numpy().tobytes())
        most = max(most, len(squares), len(vectors))
print(os.environ["MKL_CBWR"], most)
"""


def test_products_of_a_fresh_process_do_not_depend_on_alignment() -> None:
    environment = {name: value for name, value in os.environ.items() if name != MKL_VARIABLE}
    done = subprocess.run([sys.executable, "-c", MULTIPLY], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [MKL_BRANCH, "1"]


@pytest.mark.parametrize(("before", "after"), [("COMPATIBLE", "COMPATIBLE"), ("", MKL_BRANCH)])
def test_a_setting_of_the_user_is_kept(before: str, after: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MKL_VARIABLE, before)
    fix_order_of_sums()
    assert os.environ[MKL_VARIABLE] == after


@pytest.mark.parametrize("product", ["mm", "mv"])
def test_sums_by_alignment_would_be_seen(product: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sums_are_reproducible()
    multiply = getattr(torch, product)
    monkeypatch.setattr(torch, product, lambda one, other: multiply(one, other) * (1.0 + one.data_ptr() % 64))
    assert not sums_are_reproducible()


def test_the_facts_are_said() -> None:
    facts = arithmetic()
    assert set(facts) == {"processor", "torch_blas", "numpy_blas", MKL_VARIABLE}
    assert all(facts.values())
    assert torch.backends.cpu.get_cpu_capability() in facts["processor"]
