"""Programs that an installation runs beside the operator. They share no process with it."""
