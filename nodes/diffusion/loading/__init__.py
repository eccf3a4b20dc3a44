"""Weights brought into memory, pooled, converted and placed. Imports torch."""
