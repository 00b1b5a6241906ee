"""Use cases of the persons service. They know transactions, and neither gRPC, arq nor Qdrant."""
