"""Pure decisions about TaskSchedules."""
