"""Where results are kept: the interface of a store, the one on the disk, its files, and claims between processes."""
