"""The controller: registry, router and farm have the state; the service connects them with links."""
