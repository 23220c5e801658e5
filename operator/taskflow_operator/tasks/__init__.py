"""The controller of Tasks. Other controllers build on it; it knows them only by `ports`."""
