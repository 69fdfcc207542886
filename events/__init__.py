"""The words: what is asked, what is true, what is owed, what is seen; the log that keeps them and the bus that tells.

Imports no other room.
"""
