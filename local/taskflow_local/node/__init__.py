"""A Node without a kubelet: runs each Pod bound to it as local processes and reports their state.

`pods` and `status` are pure rules, `runner` runs one Pod, `agent` talks to the API server, and `logs` serves `kubectl
logs`. It has no rules about Tasks.
"""
