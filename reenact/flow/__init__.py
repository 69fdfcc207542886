"""The flow of a runtime: from a command to everybody who hears of it, and what is owed, done."""
