"""What the nodes share: base classes, checks, the protocols of adapters, batches. Imports no torch."""
