"""The clustering service: groups faces nobody has named, and keeps each person's centroids."""
