"""Handlers that do not come from a user's module: the built-in ones, and the tasks of a Celery application."""
