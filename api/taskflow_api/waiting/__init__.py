"""Explains why a Task waits, with its queue position and an estimated start."""
