"""The TOML file as values: its keys, every mistake in it, the last words about what may stand there."""
