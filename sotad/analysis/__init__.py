"""What traces say."""
