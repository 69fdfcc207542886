"""Python functions as tools: declaring them, knowing them by name, running their calls.

Imports events only. Home of docstring-parser. Never decides whether a call may run, and never writes to the log.
"""
