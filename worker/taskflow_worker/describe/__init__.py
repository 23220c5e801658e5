"""From the handlers of a worker to the TaskTemplate that describes them."""
