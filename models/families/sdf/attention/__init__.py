"""The SDF with linear attention among stocks, after Kelly, Kuznetsov, Malamud and Xu (2025).

Here belong `estimation` (the closed form) and `model` (the class).
"""

from models.families.sdf.attention.model import AttentionSDF

__all__ = ["AttentionSDF"]
