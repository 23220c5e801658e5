"""How many requests a caller, and a namespace, may make."""
