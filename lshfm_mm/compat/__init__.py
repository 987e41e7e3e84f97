"""What makes the stack run: found, installed, and made to import."""
