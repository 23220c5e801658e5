"""Celery as the fast path: its settings, and how the operator publishes. That nothing is lost is the ledger's
business.
"""
