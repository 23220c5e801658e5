"""Work in flight, in Redis: ledger, claims, leases and the event stream. Every change is one Lua call, so each is
atomic.

The protocol: `docs/architecture.md`. Workers use `WorkerLedger`, the operator `OperatorLedger`; neither touches the
keys otherwise.
"""
