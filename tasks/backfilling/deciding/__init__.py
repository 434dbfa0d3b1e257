"""What a backfill decides, as pure functions: a `World` goes in, a plan and its batches come out.

Here belong what is looked at (`world`), which retrain version is in force at a date (`anchors`), which partitions there
are and why (`partitions`), and what is made in one go (`batches`). Nothing here reads, writes or runs; import-linter
holds it.
"""
