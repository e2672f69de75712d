"""Clients of a running TorchServe, and discovery of servers on this machine. Does not import torch."""
