"""The clustering service on real stores, with the persons service beside it."""
