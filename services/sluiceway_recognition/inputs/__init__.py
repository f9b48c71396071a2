"""From what a client sent to what a model takes: sizes, turns, and the widths that crops are padded to."""
