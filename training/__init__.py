"""Trains and evaluates networks: losses, the loss network, data, the loop, and one module per task."""
