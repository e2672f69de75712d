"""What runs inside a TorchServe worker, beside inference: the base of the handlers and their metrics."""
