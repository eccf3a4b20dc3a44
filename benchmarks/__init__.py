"""What GraphFlow claims about speed and memory, as commands: ``python -m benchmarks [NAME]…``."""
