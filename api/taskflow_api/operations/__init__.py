"""One change of many Tasks, made in the background."""
