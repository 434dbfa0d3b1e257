"""From a fit to the rows of a version, and to the rows of the days after it.

A retrain and the updates that follow it make rows by the same functions, so that they agree bit for bit.

Where do I go to ...?

=================================================  ===================================
know when models are fitted again                   `models.forecasting.schedule`
take what is held, and which returns count          `models.forecasting.held`
ask a fitted model about rows of a panel             `models.forecasting.answers`
follow Omega and specific variance through time      `models.forecasting.following`
turn one fit towards the one before                  `models.forecasting.joining`
make rows whole: imputed loadings, portfolio risk    `models.forecasting.rows`
add the days after a version                         `models.forecasting.continuing`
score a version                                      `models.forecasting.metrics`
have all of it in a notebook                         `models.forecasting.forecast`
=================================================  ===================================
"""
