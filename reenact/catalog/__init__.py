"""What there is in a scope: containers, images, sessions, agents, found by id or by name."""
