"""The only package that imports Kopf: its handlers, its settings, and the thread that it runs in."""
