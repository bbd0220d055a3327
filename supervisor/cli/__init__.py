"""The command line: verbs that ask the daemon, and print what it says."""
