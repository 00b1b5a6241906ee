"""The ports of the domain, over other services."""
