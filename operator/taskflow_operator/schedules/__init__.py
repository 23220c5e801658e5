"""TaskSchedules: creates a Task at each tick of a schedule, once."""
