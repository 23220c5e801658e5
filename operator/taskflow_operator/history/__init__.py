"""Mirrors events and Tasks into PostgreSQL. Nothing here decides about a Task."""
