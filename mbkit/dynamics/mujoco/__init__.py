"""The true dynamics of MuJoCo tasks."""
