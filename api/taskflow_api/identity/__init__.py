"""Who may come in, beside Kubernetes' own tokens: OIDC, API keys, accounts. Each proves a Kubernetes identity; RBAC decides."""
