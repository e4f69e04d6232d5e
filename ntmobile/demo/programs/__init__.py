"""Programs that run in the demo, each in a process of its own."""
