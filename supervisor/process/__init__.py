"""Processes of this machine: who one is, its group, how it ended, what it inherits."""
