"""The incident tools, one module per family, and what they share."""
