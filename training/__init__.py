"""Training of the models that GraphFlow ships; never imported by the package itself."""
