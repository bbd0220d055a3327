"""The daemon: signals, the file that it follows, its door, its end."""
