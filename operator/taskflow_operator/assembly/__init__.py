"""Puts the operator together: one module for each feature. It knows every package, and no package knows it."""
