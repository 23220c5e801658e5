"""Values and decisions: pydantic and the standard library only, no I/O, no clock. Anything may import it."""
