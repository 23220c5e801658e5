"""Benchmarks. They print ratios to a floor that is measured in the same run. Start them with `make bench`."""
