"""From a graph to a plan: steps expanded, keyed, merged, batched, ordered, and held against the memory there is."""
