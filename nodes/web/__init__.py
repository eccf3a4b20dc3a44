"""Pictures from https URLs: which are allowed, their download, and the cache.

Needs nothing but the standard library. `url` reads URLs, `address` says which machines may be asked, `connection` and
`download` ask them within bounds, `download_cache` keeps what came, `picture` puts these together for the nodes.
"""
