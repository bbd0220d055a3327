"""What is told: the log, the events file, callbacks, streams, systemd."""
