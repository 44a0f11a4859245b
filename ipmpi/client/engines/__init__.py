"""Engines that are steered together: MultiEngineClient and its parts."""
