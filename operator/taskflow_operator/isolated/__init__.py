"""Runs Tasks with `isolation: Pod`: one Job for each attempt."""
