"""TaskFlow on one machine, without Docker or a cluster: for development and tests, never for production.

Holds: finding or building the programs, running them as processes, and a Node that runs Pods as local processes.
Holds not: any rule about Tasks. Imports `taskflow_core.resources` only (where the CRDs are); nothing imports this package.
"""
