"""What a delivery does to the record of a cube, and what the record says of the market.

The record is all that deliveries have said and not taken back; a cube is derived from it alone, so that the same
content gives the same cube, whatever deliveries it came in (ADR 0016). Here belong pure functions of datasets. Reading
a source belongs in `storage.sources`, keeping a record in `storage.cube`, deriving in `models.characteristics.cube`.

Where do I go to ...?

=======================================================  ==========================
put a delivery into a record, or correct one by hand      `models.deliveries.record`
put prices of two bases on one                            `models.deliveries.basis`
=======================================================  ==========================
"""

from models.deliveries.record import as_record, market_of, merged, observed_of, renamed, said_of, tidied, without

__all__ = ["as_record", "market_of", "merged", "observed_of", "renamed", "said_of", "tidied", "without"]
