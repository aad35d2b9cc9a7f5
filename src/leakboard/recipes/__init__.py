"""What is trained once and found again by the hash of its recipe."""
