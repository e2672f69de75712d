from exports import exported, networks  # noqa: F401
