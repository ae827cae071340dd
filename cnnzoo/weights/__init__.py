"""Trained weights: the table of what the world has (table.py), and the one loader for any file (load.py)."""
