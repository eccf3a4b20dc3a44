"""The base pocket model: a tiny Stable Diffusion trained from scratch on rendered scenes with exact captions."""
