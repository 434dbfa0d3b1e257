"""What a step needs to find its inputs and to keep its results, made from the settings alone.

Here belongs the opening of stores. It travels to Dask workers as a path, never with secrets.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from models import Panel
from schemas.refs import PanelRef
from storage.layout import Layout
from storage.work import WorkStore

_IN_MEMORY_BYTES = 2**29
"""A panel up to this size is kept in memory by each worker; a larger one is read block by block."""


@dataclass(frozen=True)
class Workspace:
    """The stores under one root."""

    root: Path

    @cached_property
    def layout(self) -> Layout:
        """Where everything lies."""
        return Layout(self.root)

    @cached_property
    def work(self) -> WorkStore:
        """The store of intermediate results."""
        return WorkStore(self.layout)

    def panel(self, ref: PanelRef) -> Panel:
        """Open a panel that was built before."""
        return _open_panel(self.root, ref.key)


@lru_cache(maxsize=2)
def _open_panel(root: Path, key: str) -> Panel:
    panel = Panel(Workspace(root).work.open_dataset("panels", key))
    return panel.load() if panel.data.nbytes <= _IN_MEMORY_BYTES else panel
