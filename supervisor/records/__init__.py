"""What is on disk of each kernel, so that the next supervisor can take it up."""
