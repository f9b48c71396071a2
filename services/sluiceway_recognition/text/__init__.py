"""How a line is read: from the steps of a text model to characters, spaces and words, of long and turned lines, too."""
