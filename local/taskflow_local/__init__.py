"""TaskFlow on one machine, without Docker or a cluster: for development and tests, never for production.

It finds or builds the programs, runs them as processes, and has a Node that runs Pods as local processes. It has no
rules about Tasks. Only tests, benchmarks and the command line import it.
"""
