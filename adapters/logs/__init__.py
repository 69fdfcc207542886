"""Logs: where the one log rests. Home of eventsourcing."""
