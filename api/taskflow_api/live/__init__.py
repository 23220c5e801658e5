"""What goes on at the moment: changes of Tasks as they happen, and logs as they grow."""
