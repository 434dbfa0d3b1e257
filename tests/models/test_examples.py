"""The examples in the docstrings of everything public run, and print what they say."""

from __future__ import annotations

import doctest

import pytest

import models

OTHERWISE = {"WalkForward"}
"""Its docstring is the description of a key of a config."""


@pytest.mark.parametrize("name", sorted({*models.__all__} - OTHERWISE))
def test_the_example_of_a_public_name_runs(name: str) -> None:
    (example,) = doctest.DocTestFinder(recurse=False).find(getattr(models, name), name, globs={})
    assert "Examples\n" in str(example.docstring), f"{name} has no example"
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0
