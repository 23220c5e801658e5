"""Decisions about Tasks as pure functions: the clock is a parameter, and nothing is awaited."""
