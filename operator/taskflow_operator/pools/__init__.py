"""Keeps WorkerPools: their Deployments, their status, and how many pods they have."""
