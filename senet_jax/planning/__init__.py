"""A run before it starts: its programs, memory, collectives and sharding."""
