"""Trained weights: the table of what the world has (table.py), where their files are had from (fetch.py), and the one
loader for any file (load.py).
"""
