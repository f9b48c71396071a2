"""Files of several pages. `kind` needs nothing; `pages` and `pdf` are for workers, and need what decodes."""
