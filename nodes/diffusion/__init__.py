"""The diffusion backend: models, their components, and one adapter for each family of pipelines.

Only `adapters` and `loading` import torch, when a step runs; all other packages know models by their JSON files and the
headers of their weights, so that a workflow is validated and planned without it.
"""

import os

# OpenMP's threads spin while they wait for one another, unless this is set before torch starts them: on a processor
# shared with other programs a run took ten times as long. A value set by the user stays.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
