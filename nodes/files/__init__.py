"""Files that nodes read and write: digests, pictures and their headers, output files."""
