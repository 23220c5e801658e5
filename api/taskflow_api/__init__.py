"""The REST API: writes resources, reads the history and the object store. It never publishes messages to the broker."""
