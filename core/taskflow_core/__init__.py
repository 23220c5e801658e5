"""What all components share. Knows no component; imports nothing here, so that each component loads only what it
uses.
"""
