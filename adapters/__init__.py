"""The outside: one file a neighbour.

Imports `events` and its own room. A driving adapter (a terminal, a server) is handed a runtime and never looks for one.
"""
