"""Errors, tests and premia along time, on plain arrays: what regressions say beside their slopes.

Where do I go to ...?

==============================================  ==================================
regress many stocks on few factors at once       `models.inference.regression`
follow or shrink betas                           `models.inference.betas`
test that all alphas are zero                    `models.inference.pricing_tests`
find premia, SDF loadings, and their errors      `models.inference.factor_premia`, `models.inference.two_pass`
know whether one of two forecasts is better      `models.inference.diebold_mariano`
know what dates add to betas, with gaps          `models.inference.first_pass`
==============================================  ==================================
"""
