"""Secrets: known, recognised, and hidden from whatever is stored, told or shown."""
