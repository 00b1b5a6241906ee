"""The domain's ports to other services and to Qdrant."""
