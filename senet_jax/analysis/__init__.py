"""What came out: figures and reports from the folders of runs."""
