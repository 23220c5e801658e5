"""The process around the controllers: leader election, lifecycle, probes. It knows no resource."""
