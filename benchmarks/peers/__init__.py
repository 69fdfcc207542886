"""One peer a file: the same turns, sessions and starts as ours, each as its own documentation says to do it."""
