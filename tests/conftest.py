"""For every test: nothing is taken from, or left in, the results that the user's own runs keep."""

from __future__ import annotations

import os

os.environ["GRAPHFLOW_NO_CACHE"] = "1"
