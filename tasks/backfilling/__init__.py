"""Backfills: what would have to be made, in which order, and making it.

Where do I go to ...?

=================================================  ================================
know which partitions a request has, and why       `tasks.backfilling.deciding.partitions`
know which retrain version an update goes back to  `tasks.backfilling.deciding.anchors`
look at cube, versions and records before a plan   `tasks.backfilling.survey`
join partitions into batches                       `tasks.backfilling.deciding.batches`
make a batch, record what became of it             `tasks.backfilling.running`
do the work of one batch                           `tasks.backfilling.engine`
add it all up, show it in Prefect                  `tasks.backfilling.summary`
=================================================  ================================

Planning is pure: it sees a `World` and touches nothing. Words and records belong in `schemas.backfill`.
"""
