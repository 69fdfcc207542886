"""What the terminal is handed: a log read, worked in, checked; the demo."""
