"""The rules that agents are held to: layers of policy, read, laid over them, and kept with a session."""
