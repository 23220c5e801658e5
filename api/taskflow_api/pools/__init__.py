"""WorkerPools over REST."""
