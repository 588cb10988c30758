"""What Dujiang is about, in plain Python: no I/O, no await, no clock, nothing from third parties."""
