"""Trials on record, each in a process of its own."""
