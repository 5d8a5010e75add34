"""Advice on what an agent costs: arithmetic over its last runs. It never changes anything."""
