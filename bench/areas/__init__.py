"""One module per area; its ``measure`` answers the rows."""
