"""Data sets built from archives, and verified."""
