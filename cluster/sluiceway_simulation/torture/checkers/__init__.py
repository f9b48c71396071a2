"""What must never happen, one concern a file. Each says what it found wrong; nothing found is an empty list."""
