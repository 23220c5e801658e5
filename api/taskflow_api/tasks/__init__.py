"""Tasks over REST: created in Kubernetes, listed from the history."""
