"""Networks from other projects and for other runtimes: import and export. Not part of an archive."""
