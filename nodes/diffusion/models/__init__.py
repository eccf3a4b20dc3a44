"""Models described without reading their weights, and the downloads that they need."""
