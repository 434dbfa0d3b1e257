"""From fits to the rows of a version."""
