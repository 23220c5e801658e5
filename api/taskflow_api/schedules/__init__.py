"""TaskSchedules over REST: create, read and change them, run one now, backfill, preview, and list their runs."""
