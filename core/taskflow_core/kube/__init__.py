"""The Kubernetes API: Tasks and the few other objects that components read or write. Translates its errors to ours."""
