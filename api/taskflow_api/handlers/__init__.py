"""Handlers that the TaskTemplates of a namespace describe."""
