"""Webhooks: messages about finished Tasks, by Standard Webhooks (https://www.standardwebhooks.com)."""
