"""What a TorchServe worker runs: one handler and one model configuration per task."""
