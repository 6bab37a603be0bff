"""Images: what came from the web -> what is stored."""
