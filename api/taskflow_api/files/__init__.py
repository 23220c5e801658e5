"""Objects of a namespace over REST: list, delete, and presigned links to download and upload."""
