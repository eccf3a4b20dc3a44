"""The machine: devices, processors, memory, files read ahead. Nothing here knows workflows."""
