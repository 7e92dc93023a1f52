"""The command line: flags, standard streams, Ctrl-C."""
