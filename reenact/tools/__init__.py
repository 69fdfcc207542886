"""Tools run for agents: where they run, and the files that they come from."""
