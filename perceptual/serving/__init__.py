"""Running a TorchServe: starting, supervising, scaling, registering. Imports no torch."""
