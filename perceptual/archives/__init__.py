"""Builds and reads archives, ``.mar`` files."""
