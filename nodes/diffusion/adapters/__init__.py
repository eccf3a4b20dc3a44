"""What runs a family of models: one module a family, with torch and diffusers, imported when a step runs."""
