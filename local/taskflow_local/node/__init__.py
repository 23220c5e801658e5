"""A Node without a kubelet: runs each Pod bound to it as local processes and reports their state.

`pods` and `status` decide (pure), `runner` runs one Pod, `agent` speaks with the API server, `logs` answers it. Imports `kube` and
`processes` of this package; nothing of TaskFlow's own rules.
"""
