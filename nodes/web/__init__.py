"""Pictures from https URLs: what may be asked for, how it is asked, and where it is kept.

Needs nothing but the standard library. `url` reads URLs, `address` says which machines may be asked, `connection` and
`download` ask them within bounds, `download_cache` keeps what came, `picture` puts these together for the nodes.
"""
