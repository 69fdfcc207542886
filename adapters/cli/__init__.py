"""The terminal: commands in, words and NDJSON out. Home of cyclopts and rich."""
