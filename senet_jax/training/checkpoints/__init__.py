"""Checkpoints: written, kept, verified and read."""
