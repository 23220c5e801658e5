"""Runs Tasks with `spec.array`: chunks of items instead of attempts, and one driver for each open array."""
