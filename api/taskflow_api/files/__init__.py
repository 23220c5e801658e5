"""Objects of a namespace: listed, linked, deleted, and sent in parts."""
