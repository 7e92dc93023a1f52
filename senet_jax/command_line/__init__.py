"""The command line: flags, standard streams, Ctrl-C, and the main function of a study."""
