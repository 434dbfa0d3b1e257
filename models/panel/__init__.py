"""The panel, what a model sees: excess returns beside what was known before them.

Here belong the `Panel` (`models.panel.panel`), how lag, coverage, mask and transform come about
(`models.panel.assembly`) and what is done to a cross-section (`models.panel.transforms`). What the characteristics are
belongs in `models.characteristics`.
"""

from models.panel.panel import Panel

__all__ = ["Panel"]
