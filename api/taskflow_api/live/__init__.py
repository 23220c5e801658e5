"""Streams: changes of Tasks as server-sent events, and logs that can be followed."""
