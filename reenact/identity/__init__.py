"""Identity: who calls, for whom, in which scope, and what of the log is theirs."""
