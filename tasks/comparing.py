"""Two published versions, opened to be compared. How they are matched and compared is `models.evaluation.matching`."""

from __future__ import annotations

from models.evaluation.matching import compare
from models.families.registry import family
from schemas.differences import VersionDifference
from schemas.families import kinds
from schemas.refs import VersionRef
from storage import published
from storage.layout import Layout


def compare_versions(layout: Layout, one: VersionRef, other: VersionRef) -> VersionDifference:
    """Compare two published versions.

    Raises
    ------
    CorruptionError
        If one of them is damaged.
    """
    manifests = published.read_manifest(layout, one), published.read_manifest(layout, other)
    pair = published.open_version(layout, one), published.open_version(layout, other)
    known = kinds()
    latent = all(manifest.kind in known and family(manifest.kind).latent for manifest in manifests)
    return compare(pair, manifests, latent=latent)
