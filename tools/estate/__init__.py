"""The simulated production environment: a pure function of seed, scenario, actions and time."""
