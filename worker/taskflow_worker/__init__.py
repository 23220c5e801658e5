"""Runs handlers: the only consumer of broker messages. Holds neither a Kubernetes client nor a database login."""
