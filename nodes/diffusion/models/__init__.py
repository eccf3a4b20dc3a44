"""What is known of a model without its weights, and what has to be downloaded for it. Imports no torch."""
