"""The way to a controller through ssh."""
