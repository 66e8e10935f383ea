"""Opening what the user named, and making sure that the network is fed as it was trained."""
