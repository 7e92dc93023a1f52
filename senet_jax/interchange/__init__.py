"""Weights in and out of the project."""
