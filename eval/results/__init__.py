"""What an evaluation leaves on disk, in every format that somebody reads."""
