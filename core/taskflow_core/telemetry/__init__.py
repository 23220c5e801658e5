"""Logs and metrics: set up once per process. Above the settings, below everything that does I/O."""
