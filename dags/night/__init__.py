"""What the DAGs share: their settings, and how a step becomes a task."""
