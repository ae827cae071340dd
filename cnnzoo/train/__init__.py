"""The trainer and what it is handed: losses, optimisers, schedules, phases.

It knows no architecture, data set or file format.
"""
