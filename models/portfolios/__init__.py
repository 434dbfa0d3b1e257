"""Portfolios.

Weights by rule (`models.portfolios.weights`), and sorts on characteristics (`models.portfolios.sorts`).
"""
