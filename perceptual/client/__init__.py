"""Clients of a running TorchServe, and the discovery of those on this machine. Imports no torch."""
