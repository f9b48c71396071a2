"""The cluster while somebody watches it: samples of every server, figures made of two of them, and what they say."""
