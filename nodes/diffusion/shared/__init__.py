"""Code that nodes share: base classes, checks, parameters, and the protocols of adapters."""
