"""What memory networks and steps need, from configurations and headers alone. Imports no torch."""
