"""From regions that lie on a page to its lines and blocks, in the order in which they are read. Pure, without numpy."""
