"""One connection to a controller, what goes through it, and results that are waited for."""
