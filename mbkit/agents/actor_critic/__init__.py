"""Off-policy learners of a policy and its critics, most of them for continuous actions."""
