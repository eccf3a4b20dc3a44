"""The code that runs each family of models on torch and diffusers: one module per family, imported when a step runs."""
