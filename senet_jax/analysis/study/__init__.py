"""Studies: their cells, statistics, tables and figures."""
