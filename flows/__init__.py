"""The flows, and nothing but flows: each reads like a sentence. Steps belong in `tasks`."""
