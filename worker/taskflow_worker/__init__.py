"""The worker: runs handlers and is the only consumer of broker messages. It has no Kubernetes client or database login.

Handler authors import from `taskflow_worker.sdk`.
"""
