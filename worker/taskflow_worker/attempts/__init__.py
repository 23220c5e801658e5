"""One attempt from its message to its outcome. Nothing here knows Celery, leases or the ledger."""
