"""A task's whole story, on fakes: the real runner and engine, with time, vendor, network and disk replaced."""
