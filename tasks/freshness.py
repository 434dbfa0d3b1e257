"""Which champions have fallen behind their cube: the sign of an update that failed, or never ran."""

from __future__ import annotations

from datetime import date

from schemas.contracts import Manifest
from schemas.refs import VersionRef
from schemas.settings import Settings
from storage import published
from storage.cube import Cube
from storage.sources.calendars import sessions
from tasks.events import announce_stale_champion
from tasks.logs import run_logger
from tasks.steps import step
from tasks.workspace import Workspace


@step("look for stale champions", "look for stale champions")
def report_stale_champions(universe: str | None, settings: Settings) -> list[VersionRef]:
    """Warn of every champion that lags behind its cube by more than `Settings.champion_max_age`, and send an event.

    Parameters
    ----------
    universe : str or None
        Which universe; all that have published something if None.
    settings : Settings
        How old a champion may be, and where everything is.

    Returns
    -------
    list[VersionRef]
        The champions that are stale. A model without a champion is not.
    """
    layout = Workspace.of(settings).layout
    stale, heads = [], dict[str, date]()
    for model in sorted({(ref.universe, ref.model) for ref in published.list_versions(layout, universe)}):
        champion = published.latest(layout, *model)
        if champion is None:
            continue
        manifest = published.read_manifest(layout, champion)
        if champion.universe not in heads:
            dates = Cube.open(layout, champion.universe).open_dataset().indexes["date"]
            heads[champion.universe] = dates[-1].date()
        head = heads[champion.universe]
        behind = periods_behind(manifest, head)
        if behind > settings.champion_max_age:
            stale.append(champion)
            announce_stale_champion(champion, manifest.as_of, head, behind)
            run_logger().warning(
                "the champion of %s/%s is stale: as of %s, the cube has %s", *model, manifest.as_of, head
            )
    return stale


def periods_behind(manifest: Manifest, head: date) -> int:
    """Count the periods after a version up to the newest date of its cube: sessions, or months of a monthly one."""
    if head <= manifest.as_of:
        return 0
    if manifest.config["frequency"] == "monthly":
        return (head.year - manifest.as_of.year) * 12 + head.month - manifest.as_of.month
    return len(sessions(manifest.config["calendar"], manifest.as_of, head)) - 1
