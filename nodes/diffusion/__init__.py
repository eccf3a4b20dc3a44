"""The diffusion backend: models, their components, and one adapter for each pipeline family.

`model_info`, `samplers`, `checks` and `families` (the package itself) know models by their JSON files and import no
torch; `pool`, `models` and the modules inside `families` do the work.
"""
