"""Runs TorchServe: starts and supervises it, scales and registers models. Does not import torch."""
