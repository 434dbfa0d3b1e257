"""The families of factor models, a folder each, and what all of them share.

Where do I go to ...?

===========================================  ================================================
know what every model must do                `models.families.base`
write a model on Gram statistics alone       `models.families.linear`
turn latent factors                          `models.families.rotation`
regress each stock on given factors          `models.families.time_series`
regress on given loadings                    `models.families.fama_macbeth`, `.cross_section`
choose regressors by a penalty               `models.families.penalised`
take principal components                    `models.families.pca`
instrument loadings by characteristics       `models.families.ipca`
let loadings be nonlinear, in closed form    `models.families.kernel`, `.regressed_pca`
share what such models share                 `models.families.functions`
learn loadings by a network                  `models.families.autoencoder`
learn a stochastic discount factor           `models.families.sdf`
train networks of a family of your own       `models.families.neural`
add statistical factors to any model         `models.families.hybrid`
find clusters in the residuals of any model  `models.families.residual_som`
find nonlinear loadings of its residuals     `models.families.residual_network`
find nonlinear principal components of them  `models.families.residual_pca`
learn loadings for risk out of sample        `models.families.risk_network`
profile factor returns out of a network      `models.families.profiled`
share what models on residuals share         `models.families.residuals`
average models with a covariance             `models.families.mean_of_models`
===========================================  ================================================
"""
