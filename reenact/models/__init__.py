"""Models called for agents: one attempt, how long it may take, whom to ask instead, with which key."""
