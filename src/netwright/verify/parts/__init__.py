"""What several verifiers share."""
