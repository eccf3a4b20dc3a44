"""Drawings of workflows: as Mermaid text, and as SVG that needs nothing else to be shown.

``drawing_of_graph`` and ``drawing_of_plan`` say what is in the picture, `mermaid` and `svg` put it on paper; `layout`
is the only one that knows coordinates.
"""

from graphflow.draw.drawing import Arrow, Box, Drawing, Frame, drawing_of_graph, drawing_of_plan
from graphflow.draw.mermaid import mermaid
from graphflow.draw.svg import svg

__all__ = ["Arrow", "Box", "Drawing", "Frame", "drawing_of_graph", "drawing_of_plan", "mermaid", "svg"]
