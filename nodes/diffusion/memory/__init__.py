"""Estimates of the memory of networks and steps, from configurations and headers alone."""
