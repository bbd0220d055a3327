"""One kernel on this machine: its address, its launch, its run, its checks.  Decides nothing."""
