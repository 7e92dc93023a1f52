"""Trained networks: restored, averaged and evaluated."""
