"""Sufficient statistics: what one pass over a panel leaves for every linear model.

Here belong the per-date Gram statistics and their rule of rank (`models.statistics.gram`), the products behind them
(`models.statistics.products`), and how dates are cut into spans that are kept (`models.statistics.spans`).
"""
