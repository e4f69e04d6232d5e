"""Sans-I/O state machines: events and the time go in, effects come out."""
