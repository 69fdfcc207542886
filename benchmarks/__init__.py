"""Benchmarks: one question a file. `./dev bench` runs them; tests/benchmarks runs each with tiny numbers."""
