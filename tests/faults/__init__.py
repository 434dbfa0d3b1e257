"""Faults, each injected: what `docs/reliability.md` lists, by theme. Tests of one part live beside it."""
