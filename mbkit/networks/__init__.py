"""Networks shared by policies, critics and dynamics, with their normalisers and optimizers."""
