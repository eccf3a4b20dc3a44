"""For every test: nothing is taken from, or left in, the results that the user's own runs keep.

And nothing computes on an accelerator, so that the tests say the same on every machine. Those of `tests/accelerator`
do, where ``GRAPHFLOW_TEST_DEVICE`` names one.
"""

from __future__ import annotations

import os

os.environ["GRAPHFLOW_NO_CACHE"] = "1"
if "GRAPHFLOW_TEST_DEVICE" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
