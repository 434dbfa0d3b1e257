"""Judging forecasts.

Where do I go to ...?

==============================================  =====================================================
judge any covariance, a peer's too              `protocol` (asks by `asking`, gathers in `gathering`)
see what a number of it means                   `meanings`
judge the forecasts of one published version    `forecasts`
know which of many are the best                 `superiority`
multiply, solve, measure a covariance           `covariances`
form the portfolios that it is judged by        `portfolios`
test z, its tails, whole cross-sections         `calibration`, `tails`, `likelihood`
look at the loadings themselves                 `structure`
see what moves a model's loadings               `explaining`
compare two versions on common ground           `comparison`, number by number in `differences`
decide whether a version becomes champion       `gate`
choose parameters on folds of dates             `search` (Optuna), `selection` (scorers, scikit-learn)
==============================================  =====================================================
"""
