"""Notes: what the audit says of one event, a file a noun as in `events`. `projections.trail` asks them all."""
