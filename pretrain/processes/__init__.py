"""Several processes that train one model: who has which samples, how features and gradients travel."""
