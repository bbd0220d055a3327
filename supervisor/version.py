"""The version of the program, in one place for those who must not import the rest."""

__version__ = "0.1.0"
