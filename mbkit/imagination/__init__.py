"""Uses of a model besides planning: model rollouts, one-step predictions, value expansion. They see protocols."""
