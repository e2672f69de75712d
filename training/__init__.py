"""Training and evaluation: losses, the loss network, data, the loop, and one module per task."""
