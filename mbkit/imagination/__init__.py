"""What a learned model is used for besides planning: imagined rows and value expansion. It sees protocols, never a particular model."""
