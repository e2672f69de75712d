"""Code that runs only in TorchServe's workers: the base class of the handlers, and their metrics."""
