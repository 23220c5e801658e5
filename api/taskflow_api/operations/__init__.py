"""Operations: cancel or retry many Tasks in the background."""
