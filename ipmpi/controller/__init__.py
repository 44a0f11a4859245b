"""The controller: registry, router and scheduler are state (L2); service drives them over links (L4)."""
