"""Rate limiting by the generic cell rate algorithm. It counts, and leaves the decision to its callers."""
