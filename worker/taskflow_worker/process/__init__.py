"""The worker process: Celery, the pool, leases, stop requests, presence. `attempts` has what an attempt does."""
