"""How gradients become steps: optimizers, rates, averages of weights."""
