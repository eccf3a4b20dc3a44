"""Weights loaded into memory: pooled, converted and placed on devices."""
