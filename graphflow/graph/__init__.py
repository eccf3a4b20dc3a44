"""From a document to a graph: calls inlined, nodes bound to their types, edges checked, sweeps."""
