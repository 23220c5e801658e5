"""Rate limits of callers, API keys and namespaces."""
