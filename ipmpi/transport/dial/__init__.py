"""Connections made and accepted: addresses, proxies, TLS, and who is at the other end."""
