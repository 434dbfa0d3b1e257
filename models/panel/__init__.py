"""The panel, what a model sees: excess returns beside what was known before them.

Here belong the `Panel` (`models.panel.panel`), how lag, coverage, mask and transform come about
(`models.panel.assembly`), what is done to a cross-section (`models.panel.transforms`), and a made-up market for
examples (`models.panel.example`). What the characteristics are belongs in `models.characteristics`.
"""

from models.panel.example import example_cube, example_panel
from models.panel.panel import Panel

__all__ = ["Panel", "example_cube", "example_panel"]
