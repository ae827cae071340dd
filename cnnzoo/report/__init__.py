"""The page a run leaves for people."""
