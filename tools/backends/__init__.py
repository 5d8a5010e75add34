"""Where the data of the incident tools comes from."""
