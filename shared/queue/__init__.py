"""The door to arq: nothing outside this package knows which queue it is."""
