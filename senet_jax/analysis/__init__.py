"""Figures and reports from the folders of runs."""
