"""Turns schedules of other systems into TaskSchedules. Pure."""
