"""Kopf's decorators, and nothing else: each handler calls one method of what `wiring` built."""
