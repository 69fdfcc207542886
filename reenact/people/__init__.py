"""People in the loop: questions put to them, their answers, handlers that answer in their place."""
