"""Learning a matcher: a linear projection of one library's embeddings in which its people are told apart better."""
