"""Use cases of the suggestions service. They know transactions and ports, and neither gRPC, arq nor Qdrant."""
