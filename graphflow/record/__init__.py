"""What a run leaves for people: records in pictures, manifests, contact sheets."""
