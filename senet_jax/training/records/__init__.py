"""The folder of a run: its config, metrics, sessions and their owner."""
