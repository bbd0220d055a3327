"""The door: orders from outside, as HTTP on a Unix socket, and the client of it."""
