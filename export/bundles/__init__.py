"""What a bundle is made of: signatures, the graph before the network, the card, warm-up, checks."""
