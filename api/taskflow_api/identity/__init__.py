"""Authentication beside Kubernetes tokens: OIDC, API keys and accounts. Each resolves to a Kubernetes identity."""
