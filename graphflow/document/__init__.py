"""The workflow document: JSON text, its validation, declared inputs, and the library of saved workflows."""
