"""Hosts: where effects and cells run, and who owns a log while they do."""
