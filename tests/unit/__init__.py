"""Values in, values out: no network, no privileges, no sleep; a mirror of the package."""
