"""Contenders, workers and measures that benchmarks use."""
