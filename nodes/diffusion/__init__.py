"""The diffusion backend: models, their components, and one adapter for each pipeline family.

`model_info`, `samplers`, `checks` and `families` (the package itself) know models by their JSON files and import no
torch; `pool`, `models` and the modules inside `families` do the work.
"""

import os

# OpenMP's threads spin while they wait for one another, unless told otherwise before torch starts them: on a processor
# that anything else uses too, a run took ten times as long. What the user has set stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
