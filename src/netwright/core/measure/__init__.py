"""What a network costs, on which machine, and how far two of them differ."""
