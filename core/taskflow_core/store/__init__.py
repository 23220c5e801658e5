"""History in PostgreSQL: a mirror of Tasks that outlives the resources. Rebuilt from the stream; never the truth."""
