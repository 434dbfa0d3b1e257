"""The simulation of tasks on any number of machines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.machines import Task, finish


@given(
    st.lists(st.tuples(st.floats(0.01, 10.0), st.sets(st.integers(0, 20), max_size=3)), min_size=1, max_size=20),
    st.integers(1, 8),
)
def test_it_ends_no_sooner_than_it_can_and_no_later_than_any_order_does(drawn, machines):
    """Graham 1966, Bounds for certain multiprocessing anomalies."""
    tasks = {
        f"{n}": Task(took, tuple(f"{need}" for need in needs if need < n)) for n, (took, needs) in enumerate(drawn)
    }
    chains: dict[str, float] = {}
    for name, task in tasks.items():
        chains[name] = task.seconds + max((chains[need] for need in task.needs), default=0.0)
    work, chain = sum(task.seconds for task in tasks.values()), max(chains.values())
    found = finish(tasks, machines, latency=0.0)
    assert max(work / machines, chain) <= found * (1 + 1e-12)
    assert found <= (work / machines + (1 - 1 / machines) * chain) * (1 + 1e-12)
    assert finish(tasks, 1) == pytest.approx(work + 0.1 * len(tasks))


def test_what_most_waits_for_goes_first():
    long = {"a": Task(1.0, ()), "b": Task(1.0, ()), "c": Task(3.0, ()), "d": Task(3.0, ("b",))}
    assert finish(long, 2, latency=0.0) == 4.0
