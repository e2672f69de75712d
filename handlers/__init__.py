"""The handlers of TorchServe's workers: one module and one model configuration per task."""
