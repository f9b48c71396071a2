"""Stage servers without models: front, door, servicer, flow and pool are the real ones, and workers are a profile."""
