"""Tools: Python functions a model may call, described from their hints and docstring, run with their arguments checked."""
