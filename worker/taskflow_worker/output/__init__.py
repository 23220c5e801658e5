"""What a handler prints and logs: captured, kept as the attempt's log, shipped to the object store."""
