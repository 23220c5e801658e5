"""The provisioner: gives the workers of each namespace their own logins of Redis and S3, and takes them back."""
