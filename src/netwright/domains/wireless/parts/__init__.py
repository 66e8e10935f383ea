"""What methods on radio networks share."""
