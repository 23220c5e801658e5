"""WorkerPools over REST: read, pause and drain."""
