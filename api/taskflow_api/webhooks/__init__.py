"""Telling a URL that a Task ended, as Standard Webhooks (https://www.standardwebhooks.com) has it."""
