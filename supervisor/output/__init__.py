"""What a kernel process itself wrote: the file, its rotation, and reading on across rotations."""
