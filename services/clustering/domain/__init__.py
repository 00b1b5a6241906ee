"""Use cases of the clustering service. Nothing here knows gRPC, Qdrant or arq."""
