"""Why a Task waits, where it stands, and for how long still."""
