"""How well text is read, class by class, beside other readers: see docs/accuracy.md. `make accuracy` runs it."""
