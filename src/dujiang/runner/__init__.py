"""What the program does: intake, admission, one task after the other, rescue, progress. Start with `run_task`."""
