"""What all routes share: access checks, bodies, cursors, ETags, problems and middleware. It has no routes itself."""
