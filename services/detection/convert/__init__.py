"""Messages to commands, and results to messages; nothing else. One module per area of the contract."""
