"""Imports networks from other projects, and exports ours for other runtimes. Not part of an archive."""
