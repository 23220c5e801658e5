"""The command line `taskflow`, which is also the kubectl plug-in `kubectl taskflow`."""
