"""What the machine has: devices, processors, memory, files read ahead. Nothing here knows workflows."""
