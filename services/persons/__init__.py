"""The people: who they are, whose face is whose, and the ledger of every change."""
