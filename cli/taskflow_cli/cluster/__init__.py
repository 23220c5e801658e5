"""The Kubernetes API, as the user of a kubeconfig."""
