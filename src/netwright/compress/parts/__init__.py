"""What several compressing methods share."""
