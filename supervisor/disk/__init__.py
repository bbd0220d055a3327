"""Files that are replaced whole, locks, whom to trust, and the one way off the loop for what may hang."""
