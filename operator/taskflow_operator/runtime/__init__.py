"""What controllers are built from: queues, watches, writers, supervision. It knows no controller."""
