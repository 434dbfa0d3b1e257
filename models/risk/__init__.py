"""Risk, from what is known of factors and residuals.

Omega (`models.risk.covariance`), specific variance (`models.risk.specific`), portfolios (`models.risk.portfolio`),
and what follows for them: parts of volatility (`models.risk.contributions`), beta, tracking error and trades
(`models.risk.benchmark`), scenarios (`models.risk.stress`), VaR and ES (`models.risk.tails`), what was earned
(`models.risk.attribution`), all of it for one book by a published version (`models.risk.book`), returns that are not
linear in factors (`models.risk.nonlinear`), very many at once (`models.risk.many`). How a fitted model becomes the rows
that these estimators see belongs in `models.forecasting`.
"""
