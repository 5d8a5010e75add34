"""What agents can do. Knows nothing of runs."""
