"""Watches the pods of workers, to tell why attempts died with them."""
