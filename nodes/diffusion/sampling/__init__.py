"""Samplers, noise schedules, seeds of noise, and the syntax of prompts."""
