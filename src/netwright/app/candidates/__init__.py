"""What is tried, how it is measured beside the original, and which one is taken."""
