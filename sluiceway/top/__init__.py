"""`sluiceway top`: the cluster live in a terminal. Needs the extra `top` (Textual); what is pure in here does not."""
