"""Risk, from what is known of factors and residuals.

Omega (`models.risk.covariance`), specific variance (`models.risk.specific`), portfolios (`models.risk.portfolio`). How
a fitted model becomes the rows that these estimators see belongs in `models.forecasting`.
"""
