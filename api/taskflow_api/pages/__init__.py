"""Pages for people who open the API in a browser: what it is, and its reference. They have no scripts."""
