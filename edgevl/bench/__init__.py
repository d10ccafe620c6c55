"""`edgevl bench`: how fast each stage is on this machine, and whether that has changed."""
