"""The page in the browser, and metrics; never loaded by the daemon."""
