"""Arrays to parameters: losses, minibatches, Adam, natural gradients, KFAC."""
