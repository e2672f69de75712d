"""Archives: building and reading ``.mar`` files."""
