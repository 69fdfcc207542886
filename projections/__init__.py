"""What it looks like: views folded from the log, which can always be thrown away and rebuilt.

Imports `events` and its own room. Shows, never decides.
"""
