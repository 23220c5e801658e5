"""Turns Task resources into messages and events back into status. Kopf is known only to `__main__`, `wiring` and `handlers`."""
