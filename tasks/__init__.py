"""One thin step each: open what a reference names, call the pure function, store the result, return a reference.

Here belong the glue between `models` (maths) and `storage` (bytes), and what runs on Dask workers. Maths, formats and
the order of the steps do not: they live in `models`, `storage` and `flows`.
"""
