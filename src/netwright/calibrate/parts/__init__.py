"""What several calibrators share."""
