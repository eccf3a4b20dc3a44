"""Samplers, noise schedules, and how prompts are read. Imports no torch."""
