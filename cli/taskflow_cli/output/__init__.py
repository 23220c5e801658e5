"""What is printed: tables for people, and formats for programs. Pure."""
