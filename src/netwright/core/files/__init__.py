"""Networks as files: read, checked, written, proved; and where files lie."""
