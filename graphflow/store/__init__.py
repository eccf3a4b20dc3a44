"""Stores of results: the interface, the one on the disk, its files, and claims between processes."""
