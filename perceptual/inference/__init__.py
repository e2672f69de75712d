"""Inference: networks, weight files, images, and the predictor that runs a network on pictures."""
