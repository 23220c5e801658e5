"""The REST API, for what only the history and the object store know."""
