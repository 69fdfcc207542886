"""Who decides: one pure decider a noun, the cell that gives it a life, the threads that carry it.

Imports `events` and its own room. The noun files know no clock, no chance and no I/O.
"""
