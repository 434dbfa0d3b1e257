"""What one pass over a panel leaves for every model: sufficient statistics, and functions of characteristics.

Here belong the per-date Gram statistics and their rule of rank (`models.statistics.gram`), the products behind them
(`models.statistics.products`), products whose bits depend on one row alone (`models.statistics.rowwise`), functions of
characteristics and random features (`models.statistics.features`), and how dates are cut into spans that are kept
(`models.statistics.spans`).
"""
