"""Tasks: how one is written, shown, explained and waited for."""
