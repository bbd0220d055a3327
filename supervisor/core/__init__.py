"""The decisions: a pure machine of values, without a clock, without I/O."""
